/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Frames between the roles over a SOCK_SEQPACKET socketpair.
 *
 * One frame is one packet: version (u8), type (u8), two zero bytes, length of the body (u32, equal
 * to what follows), body. Native byte order: both ends are the same executable. What stands in the
 * bodies: messages.h. Nobody blocks on sending: frames that the socket does not take wait in a
 * bounded queue, and a full queue refuses. */

#include "gatewayd/bytes.h"

#define LINK_VERSION      1
#define LINK_HEADER_BYTES 8
/* The longest frame: the largest CoAP body taken (64 KiB at most, by configuration) and its fields. */
#define LINK_FRAME_MAX (72 * 1024)
/* The most descriptors that one frame carries. */
#define LINK_DESCRIPTORS_MAX 8

struct link;

enum link_refusal {
        LINK_MAY_REFUSE, /* a full queue returns -ENOBUFS and drops the frame */
        LINK_NEVER_DROP, /* a full queue marks the link broken: the role must end */
};

/* Takes over `fd` (made non-blocking). `queue_bytes` bounds what waits for the socket.
 * Returns 0 or -errno. */
int link_new(int fd, size_t queue_bytes, struct link **ret);
struct link *link_free(struct link *link);
void link_freep(struct link **link);

int link_fd(const struct link *link);
/* Epoll events the owner waits for: EPOLLIN, and EPOLLOUT while something is queued. */
uint32_t link_events(const struct link *link);
/* Frames sent, received, refused; bytes queued now. */
struct link_statistics {
        uint64_t sent, received, refused;
        size_t queued_bytes;
};
void link_statistics(const struct link *link, struct link_statistics *ret);

/* Appends one frame to the queue; link_flush() sends. Body at most LINK_FRAME_MAX − header.
 * Returns 0, -ENOBUFS (refused), -EMSGSIZE, -EPIPE (broken). */
int link_send(struct link *link, uint8_t type, struct bytes body, enum link_refusal refusal);
/* The same with descriptors (SCM_RIGHTS); they are duplicated now and closed once sent. */
int link_send_descriptors(struct link *link, uint8_t type, struct bytes body, const int *descriptors, size_t count);
/* Sends what is queued, many frames in a sendmmsg. 0, or -EPIPE when the other end is gone. */
int link_flush(struct link *link);

struct frame {
        uint8_t type;
        struct bytes body;                     /* valid during the call */
        int descriptors[LINK_DESCRIPTORS_MAX]; /* owned by the receiver; -1 when absent */
        size_t descriptor_count;
};

/* Closes the descriptors of a frame; 0 where there were none, else -EBADMSG: for handlers that expect none. */
int frame_refuse_descriptors(struct frame *frame);

/* Returns 0, or a negative errno which ends the reading and breaks the link. */
typedef int (*link_handler)(void *userdata, struct frame *frame);

/* Takes up to `limit` frames (recvmmsg) and hands each to `handler`. Returns the number of frames
 * taken (0: nothing there), -EPIPE at end of file, -EBADMSG for a malformed frame. */
int link_receive(struct link *link, size_t limit, link_handler handler, void *userdata);

/* Parses one packet. Returns 0 or -EBADMSG. */
int frame_parse(struct bytes packet, struct frame *ret);

/* Writing and reading the fields of a body: fixed order, u8/u16/u32/u64 native, slices with a u32
 * length before them. A reader that ran past the end, or has bytes left, is not ok at the end. */
struct field_reader {
        struct bytes left;
        bool is_bad;
};

void field_put_u8(struct buffer *b, uint8_t v);
void field_put_u16(struct buffer *b, uint16_t v);
void field_put_u32(struct buffer *b, uint32_t v);
void field_put_u64(struct buffer *b, uint64_t v);
void field_put_bytes(struct buffer *b, struct bytes v);
uint8_t field_get_u8(struct field_reader *r);
uint16_t field_get_u16(struct field_reader *r);
uint32_t field_get_u32(struct field_reader *r);
uint64_t field_get_u64(struct field_reader *r);
struct bytes field_get_bytes(struct field_reader *r);
/* 0 when all was read and nothing is left, else -EBADMSG. */
int field_reader_end(const struct field_reader *r);
