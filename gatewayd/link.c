/* SPDX-License-Identifier: Apache-2.0 */

/* Frames over SOCK_SEQPACKET: bounded queues, many frames in one system call. Knows nothing of what
 * stands in the bodies. */

#include "gatewayd/link.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "gatewayd/crash_point.h"

/* How many packets one sendmmsg or recvmmsg moves. */
#define LINK_BURST 64
#ifdef GATEWAYD_TESTCLOCK
#define SEND_BURST 1 /* a test ends the process between any two frames */
#else
#define SEND_BURST LINK_BURST
#endif

struct packet {
        struct packet *next;
        size_t size;
        size_t descriptor_count;
        int descriptors[LINK_DESCRIPTORS_MAX];
        uint8_t data[];
};

struct link {
        int fd;
        bool is_broken;
        size_t queue_limit;
        struct packet *first, **last;
        struct link_statistics statistics;
        uint8_t *receive; /* LINK_BURST frames of LINK_FRAME_MAX, touched only as far as used */
};

int link_new(int fd, size_t queue_bytes, struct link **ret) {
        int flags = fcntl(fd, F_GETFL);
        struct link *link;

        if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
                return -errno;
        link = xcalloc(1, sizeof *link);
        link->fd = fd;
        link->queue_limit = queue_bytes;
        link->last = &link->first;
        link->receive = malloc((size_t)LINK_BURST * LINK_FRAME_MAX);
        if (!link->receive)
                oom();
        *ret = link;
        return 0;
}

static void packet_free(struct packet *packet) {
        for (size_t i = 0; i < packet->descriptor_count; i++)
                close(packet->descriptors[i]);
        OPENSSL_cleanse(packet->data, packet->size); /* it may have carried a key */
        free(packet);
}

static void queue_pop(struct link *link) {
        struct packet *packet = link->first;

        link->first = packet->next;
        if (!link->first)
                link->last = &link->first;
        link->statistics.queued_bytes -= packet->size;
        packet_free(packet);
}

struct link *link_free(struct link *link) {
        if (!link)
                return NULL;
        while (link->first)
                queue_pop(link);
        close(link->fd);
        free(link->receive);
        free(link);
        return NULL;
}

void link_freep(struct link **link) {
        *link = link_free(*link);
}

int link_fd(const struct link *link) {
        return link->fd;
}

uint32_t link_events(const struct link *link) {
        return EPOLLIN | (link->first ? EPOLLOUT : 0u);
}

void link_statistics(const struct link *link, struct link_statistics *ret) {
        *ret = link->statistics;
}

static int enqueue(struct link *link, uint8_t type, struct bytes body, const int *descriptors, size_t count) {
        size_t size = LINK_HEADER_BYTES + body.size;
        uint32_t length = (uint32_t)body.size;
        struct packet *packet;

        packet = malloc(sizeof *packet + size);
        if (!packet)
                oom();
        *packet = (struct packet){ .size = size };
        packet->data[0] = LINK_VERSION;
        packet->data[1] = type;
        packet->data[2] = packet->data[3] = 0;
        memcpy(packet->data + 4, &length, sizeof length);
        if (body.size > 0)
                memcpy(packet->data + LINK_HEADER_BYTES, body.data, body.size);
        for (size_t i = 0; i < count; i++) {
                int copy = fcntl(descriptors[i], F_DUPFD_CLOEXEC, 3);

                if (copy < 0) {
                        int error = -errno;

                        packet_free(packet);
                        return error;
                }
                packet->descriptors[packet->descriptor_count++] = copy;
        }
        *link->last = packet;
        link->last = &packet->next;
        link->statistics.queued_bytes += size;
        return 0;
}

int link_send(struct link *link, uint8_t type, struct bytes body, enum link_refusal refusal) {
        if (link->is_broken)
                return -EPIPE;
        if (body.size > LINK_FRAME_MAX - LINK_HEADER_BYTES)
                return -EMSGSIZE;
        if (link->statistics.queued_bytes + body.size + LINK_HEADER_BYTES > link->queue_limit) {
                link->statistics.refused++;
                if (refusal == LINK_NEVER_DROP)
                        link->is_broken = true;
                return refusal == LINK_NEVER_DROP ? -EPIPE : -ENOBUFS;
        }
        return enqueue(link, type, body, NULL, 0);
}

int link_send_descriptors(struct link *link, uint8_t type, struct bytes body, const int *descriptors, size_t count) {
        if (link->is_broken)
                return -EPIPE;
        if (body.size > LINK_FRAME_MAX - LINK_HEADER_BYTES || count > LINK_DESCRIPTORS_MAX)
                return -EMSGSIZE;
        return enqueue(link, type, body, descriptors, count);
}

union descriptor_control {
        char bytes[CMSG_SPACE(sizeof(int) * LINK_DESCRIPTORS_MAX)];
        struct cmsghdr align;
};

static void attach_descriptors(struct msghdr *message, union descriptor_control *control, const struct packet *packet) {
        size_t size = sizeof(int) * packet->descriptor_count;
        struct cmsghdr *header;

        message->msg_control = control->bytes;
        message->msg_controllen = CMSG_SPACE(size);
        header = CMSG_FIRSTHDR(message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(size);
        memcpy(CMSG_DATA(header), packet->descriptors, size);
}

/* Sends one burst of what is queued; returns how many packets went, or -errno. */
static int flush_burst(struct link *link) {
        struct mmsghdr messages[LINK_BURST] = { 0 };
        struct iovec vectors[LINK_BURST];
        union descriptor_control control;
        unsigned count = 0;
        int sent;

        for (struct packet *p = link->first; p && count < SEND_BURST; p = p->next, count++) {
                /* Descriptors travel first in a burst of their own: one control buffer is enough. */
                if (p->descriptor_count > 0 && count > 0)
                        break;
                vectors[count] = (struct iovec){ .iov_base = p->data, .iov_len = p->size };
                messages[count].msg_hdr.msg_iov = &vectors[count];
                messages[count].msg_hdr.msg_iovlen = 1;
                if (p->descriptor_count > 0) {
                        attach_descriptors(&messages[count].msg_hdr, &control, p);
                        count++;
                        break;
                }
        }
        sent = sendmmsg(link->fd, messages, count, MSG_DONTWAIT | MSG_NOSIGNAL);
        return sent < 0 ? -errno : sent;
}

int link_flush(struct link *link) {
        if (link->is_broken)
                return -EPIPE;
        while (link->first) {
                int sent;

                crash_point("send");
                sent = flush_burst(link);
                if (sent == -EINTR)
                        continue;
                if (sent == -EAGAIN || sent == -ENOBUFS)
                        return 0; /* the rest waits for EPOLLOUT */
                if (sent < 0) {
                        link->is_broken = true;
                        return -EPIPE;
                }
                link->statistics.sent += (uint64_t)sent;
                while (sent-- > 0)
                        queue_pop(link);
        }
        return 0;
}

int frame_parse(struct bytes packet, struct frame *ret) {
        uint32_t length;

        *ret = (struct frame){ 0 };
        for (size_t i = 0; i < LINK_DESCRIPTORS_MAX; i++)
                ret->descriptors[i] = -1;
        if (packet.size < LINK_HEADER_BYTES || packet.data[0] != LINK_VERSION || packet.data[2] != 0 ||
            packet.data[3] != 0)
                return -EBADMSG;
        memcpy(&length, packet.data + 4, sizeof length);
        if (length != packet.size - LINK_HEADER_BYTES)
                return -EBADMSG;
        ret->type = packet.data[1];
        ret->body = BYTES(packet.data + LINK_HEADER_BYTES, length);
        return 0;
}

static void take_descriptors(struct msghdr *message, struct frame *frame) {
        for (struct cmsghdr *h = CMSG_FIRSTHDR(message); h; h = CMSG_NXTHDR(message, h)) {
                size_t count;

                if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
                        continue;
                count = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                for (size_t i = 0; i < count; i++) {
                        int fd;

                        memcpy(&fd, CMSG_DATA(h) + i * sizeof fd, sizeof fd);
                        if (frame->descriptor_count < LINK_DESCRIPTORS_MAX)
                                frame->descriptors[frame->descriptor_count++] = fd;
                        else
                                close(fd);
                }
        }
}

int frame_refuse_descriptors(struct frame *frame) {
        int r = frame->descriptor_count > 0 ? -EBADMSG : 0;

        for (size_t i = 0; i < frame->descriptor_count; i++)
                close(frame->descriptors[i]);
        frame->descriptor_count = 0;
        return r;
}

/* What was received and is not handed on: its descriptors are here all the same. */
static void discard(struct mmsghdr *messages, int count) {
        for (int i = 0; i < count; i++) {
                struct frame frame = { 0 };

                take_descriptors(&messages[i].msg_hdr, &frame);
                (void)frame_refuse_descriptors(&frame);
        }
}

static int deliver(struct link *link, struct mmsghdr *message, link_handler handler, void *userdata) {
        struct iovec *vector = message->msg_hdr.msg_iov;
        struct frame frame;
        int r;

        r = frame_parse(BYTES(vector->iov_base, message->msg_len), &frame);
        take_descriptors(&message->msg_hdr, &frame);
        if (message->msg_hdr.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
                r = -EBADMSG;
        if (r == 0) {
                link->statistics.received++;
                crash_point("receive");
                return handler(userdata, &frame);
        }
        (void)frame_refuse_descriptors(&frame);
        return r;
}

int link_receive(struct link *link, size_t limit, link_handler handler, void *userdata) {
        struct mmsghdr messages[LINK_BURST];
        struct iovec vectors[LINK_BURST];
        union descriptor_control controls[LINK_BURST] = { 0 };
        int taken = 0;

        while ((size_t)taken < limit) {
                unsigned want = limit - (size_t)taken < LINK_BURST ? (unsigned)(limit - (size_t)taken) : LINK_BURST;
                int got;

                memset(messages, 0, sizeof messages);
                for (unsigned i = 0; i < want; i++) {
                        vectors[i] = (struct iovec){ .iov_base = link->receive + (size_t)i * LINK_FRAME_MAX,
                                                     .iov_len = LINK_FRAME_MAX };
                        messages[i].msg_hdr = (struct msghdr){ .msg_iov = &vectors[i],
                                                               .msg_iovlen = 1,
                                                               .msg_control = controls[i].bytes,
                                                               .msg_controllen = sizeof controls[i].bytes };
                }
                got = recvmmsg(link->fd, messages, want, MSG_DONTWAIT | MSG_CMSG_CLOEXEC, NULL);
                if (got < 0 && (errno == EAGAIN || errno == EINTR))
                        break;
                if (got < 0 || (got > 0 && messages[0].msg_len == 0)) {
                        discard(messages, got);
                        return taken > 0 ? taken : -EPIPE;
                }
                for (int i = 0; i < got; i++) {
                        int r;

                        if (messages[i].msg_len == 0) {
                                discard(messages + i, got - i);
                                return taken; /* the end of file is found again next time */
                        }
                        r = deliver(link, &messages[i], handler, userdata);
                        if (r < 0) {
                                discard(messages + i + 1, got - i - 1);
                                return r;
                        }
                        taken++;
                }
                if (got < (int)want)
                        break;
        }
        return taken;
}

static void put(struct buffer *b, const void *value, size_t size) {
        memcpy(buffer_reserve(b, size), value, size);
        b->size += size;
}

void field_put_u8(struct buffer *b, uint8_t v) {
        put(b, &v, sizeof v);
}

void field_put_u16(struct buffer *b, uint16_t v) {
        put(b, &v, sizeof v);
}

void field_put_u32(struct buffer *b, uint32_t v) {
        put(b, &v, sizeof v);
}

void field_put_u64(struct buffer *b, uint64_t v) {
        put(b, &v, sizeof v);
}

void field_put_bytes(struct buffer *b, struct bytes v) {
        field_put_u32(b, (uint32_t)v.size);
        buffer_append(b, v);
}

static void get(struct field_reader *r, void *to, size_t size) {
        if (r->is_bad || r->left.size < size) {
                r->is_bad = true;
                memset(to, 0, size);
                return;
        }
        memcpy(to, r->left.data, size);
        r->left = BYTES(r->left.data + size, r->left.size - size);
}

uint8_t field_get_u8(struct field_reader *r) {
        uint8_t v;

        get(r, &v, sizeof v);
        return v;
}

uint16_t field_get_u16(struct field_reader *r) {
        uint16_t v;

        get(r, &v, sizeof v);
        return v;
}

uint32_t field_get_u32(struct field_reader *r) {
        uint32_t v;

        get(r, &v, sizeof v);
        return v;
}

uint64_t field_get_u64(struct field_reader *r) {
        uint64_t v;

        get(r, &v, sizeof v);
        return v;
}

struct bytes field_get_bytes(struct field_reader *r) {
        uint32_t size = field_get_u32(r);
        struct bytes value;

        if (r->is_bad || r->left.size < size) {
                r->is_bad = true;
                return BYTES(NULL, 0);
        }
        value = BYTES(r->left.data, size);
        r->left = BYTES(r->left.data + size, r->left.size - size);
        return value;
}

int field_reader_end(const struct field_reader *r) {
        return r->is_bad || r->left.size > 0 ? -EBADMSG : 0;
}
