/* SPDX-License-Identifier: Apache-2.0 */

/* Datagrams in and out in batches. */

#include "coap/datagrams.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define BATCH 64

struct batch {
        struct mmsghdr messages[BATCH];
        struct iovec vectors[BATCH];
        struct peer peers[BATCH];
        uint8_t data[BATCH][DATAGRAM_MAX];
};

struct datagrams {
        int fd;
        uint64_t *counters;
        struct batch in, out;
        unsigned out_count;
};

static void batch_prepare(struct batch *batch) {
        for (size_t i = 0; i < BATCH; i++) {
                struct msghdr *header = &batch->messages[i].msg_hdr;

                batch->vectors[i] = (struct iovec){ batch->data[i], DATAGRAM_MAX };
                header->msg_name = &batch->peers[i].address;
                header->msg_iov = &batch->vectors[i];
                header->msg_iovlen = 1;
        }
}

int datagrams_new(int fd, uint64_t *counters, struct datagrams **ret) {
        struct datagrams *datagrams;
        int flags = fcntl(fd, F_GETFL);

        if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
                return -errno;
        datagrams = xcalloc(1, sizeof *datagrams);
        datagrams->fd = fd;
        datagrams->counters = counters;
        batch_prepare(&datagrams->in);
        batch_prepare(&datagrams->out);
        *ret = datagrams;
        return 0;
}

struct datagrams *datagrams_free(struct datagrams *datagrams) {
        if (!datagrams)
                return NULL;
        close(datagrams->fd);
        free(datagrams);
        return NULL;
}

int datagrams_fd(const struct datagrams *datagrams) {
        return datagrams->fd;
}

size_t datagrams_receive(struct datagrams *datagrams, datagram_handler handler, void *userdata) {
        struct batch *in = &datagrams->in;
        int count;

        for (size_t i = 0; i < BATCH; i++)
                in->messages[i].msg_hdr.msg_namelen = sizeof in->peers[i].address;
        do
                count = recvmmsg(datagrams->fd, in->messages, BATCH, MSG_DONTWAIT, NULL);
        while (count < 0 && errno == EINTR);
        /* Errors of earlier sends (ICMP) come up here and concern nobody. */
        if (count <= 0)
                return 0;
        datagrams->counters[SOUTH_DATAGRAMS_IN] += (uint64_t)count;
        for (int i = 0; i < count; i++) {
                struct msghdr *header = &in->messages[i].msg_hdr;

                in->peers[i].size = header->msg_namelen;
                if ((header->msg_flags & MSG_TRUNC) || !peer_is_valid(&in->peers[i])) {
                        datagrams->counters[SOUTH_DATAGRAMS_DROPPED]++;
                        continue;
                }
                handler(userdata, &in->peers[i], BYTES(in->data[i], in->messages[i].msg_len));
        }
        return (size_t)count;
}

void datagrams_send(struct datagrams *datagrams, const struct peer *to, struct bytes data) {
        struct batch *out = &datagrams->out;
        unsigned i;

        if (data.size > DATAGRAM_MAX) {
                datagrams->counters[SOUTH_DATAGRAMS_DROPPED]++;
                return;
        }
        if (datagrams->out_count == BATCH)
                datagrams_flush(datagrams);
        i = datagrams->out_count++;
        out->peers[i] = *to;
        out->messages[i].msg_hdr.msg_namelen = to->size;
        memcpy(out->data[i], data.data, data.size);
        out->vectors[i].iov_len = data.size;
}

void datagrams_flush(struct datagrams *datagrams) {
        unsigned first = 0;

        while (first < datagrams->out_count) {
                int sent = sendmmsg(datagrams->fd, datagrams->out.messages + first, datagrams->out_count - first,
                                    MSG_DONTWAIT);

                if (sent < 0 && errno == EINTR)
                        continue;
                if (sent < 0 && (errno == EAGAIN || errno == ENOBUFS)) {
                        datagrams->counters[SOUTH_DATAGRAMS_DROPPED] += datagrams->out_count - first;
                        break;
                }
                if (sent <= 0) {
                        /* This one cannot be sent (no route, refused before); the next may. */
                        datagrams->counters[SOUTH_DATAGRAMS_DROPPED]++;
                        first++;
                        continue;
                }
                datagrams->counters[SOUTH_DATAGRAMS_OUT] += (uint64_t)sent;
                first += (unsigned)sent;
        }
        datagrams->out_count = 0;
}
