/* SPDX-License-Identifier: Apache-2.0 */

/* What a device reads from outside: CoAP messages, and the payloads of a grant, /me, a nonce, /time, EST. The
 * first byte picks: a parser by itself, or a whole device on an open session, to which the rest is a row
 * of datagrams (two bytes of length each). A datagram that begins with 0xff has the id and token of the
 * request under way put in, so that what follows them is read as its answer. */

#include <stdlib.h>
#include <string.h>

#include "tests/sim/device.h"
#include "tests/sim/device_certificates.h"

struct bench {
        struct device device;
        uint64_t now;
        uint8_t dice;
};

static uint64_t port_now(void *user) {
        return ((struct bench *)user)->now;
}

static void port_random(void *user, void *data, size_t size) {
        memset(data, ++((struct bench *)user)->dice, size);
}

static void port_connect(void *user, const struct device_key *key, struct device_bytes anchors) {
        (void)user;
        if (key->identity_size > DEVICE_IDENTITY_MAX || key->key_size > DEVICE_KEY_MAX ||
            key->certificate_size > DEVICE_CERTIFICATE_MAX || anchors.size > DEVICE_ANCHORS_MAX)
                abort();
}

static void port_disconnect(void *user) {
        (void)user;
}

static int port_send(void *user, const uint8_t *datagram, size_t size) {
        struct device_message message;

        (void)user;
        if (!device_message_parse(datagram, size, &message)) /* it must speak well itself */
                abort();
        return 0;
}

static int port_store(void *user, const struct device_memory *memory) {
        (void)user;
        if (memory->newest > 1 || memory->has_newest > 1 || memory->has_pending > 1)
                abort();
        return 0;
}

static int port_sign(void *user, const uint8_t *message, size_t size, uint8_t signature[64]) {
        (void)user;
        (void)message;
        memset(signature, (int)size, 64);
        return 0;
}

static size_t port_request(void *user, struct device_bytes certificate, struct device_key *key, uint8_t *csr,
                           size_t capacity) {
        (void)user;
        (void)certificate;
        memset(csr, 0x30, capacity);
        key->key_size = 32;
        return capacity;
}

/* Takes what has an even size. */
static int port_matches(void *user, struct device_key *key, struct device_bytes certificate) {
        (void)user;
        key->identity[0] = 'c';
        key->identity_size = 1;
        return (int)(certificate.size & 1);
}

static void power_up(struct bench *bench, bool is_operational, bool has_certificate) {
        static const uint8_t bytes[33] = { 1 };
        const struct device_config config = {
                .id = "sensor-1",
                .factory_key = bytes,
                .factory_key_size = 16,
                .idevid = { bytes, has_certificate ? sizeof bytes : 0 },
                .claims = { bytes, sizeof bytes, "firmware", "1.0", bytes },
                .block_bytes = is_operational ? 64 : 0,
                .observes = is_operational,
                .stays_connected = true,
                .wants_time = is_operational,
        };
        const struct device_port port = { bench,           port_now,     port_random, port_connect,
                                          port_disconnect, port_send,    port_store,  port_sign,
                                          port_request,    port_matches, NULL };
        struct device_memory memory = { .has_newest = is_operational };

        memory.slot[0].identity_size = 5;
        memory.slot[0].key_size = 16;
        device_init(&bench->device, &config, &port, &memory);
        bench->now += 10000;
        (void)device_tick(&bench->device);
        (void)device_connected(&bench->device);
}

static void feed(struct bench *bench, const uint8_t *data, size_t size) {
        uint8_t datagram[2048];
        const struct device_coap *coap = &bench->device.coap;
        size_t n;
        uint64_t next;

        while (size >= 2) {
                n = (size_t)(data[0] << 8 | data[1]) % sizeof datagram;
                data += 2;
                size -= 2;
                if (n > size)
                        n = size;
                memcpy(datagram, data, n);
                if (n >= 8 && datagram[0] == 0xff) {
                        datagram[0] = 0x64;
                        datagram[2] = (uint8_t)(coap->request_id >> 8);
                        datagram[3] = (uint8_t)coap->request_id;
                        memcpy(datagram + 4, coap->request_token, 4);
                }
                next = device_input(&bench->device, datagram, n);
                data += n;
                size -= n;
                /* Time goes on; a handshake that it begins succeeds. */
                bench->now = next < bench->now + 86400000 && next > bench->now ? next : bench->now + 10;
                (void)device_tick(&bench->device);
                (void)device_connected(&bench->device);
        }
}

/* What it finds lies in the message, and is all there is. */
static void check_certificates(struct device_bytes body) {
        struct device_bytes list, one;

        if (!device_read_certs_only(body, &list))
                return;
        if (list.size == 0 || list.data < body.data || list.data + list.size > body.data + body.size)
                abort();
        while (list.size > 0)
                if (!device_next_certificate(&list, &one) || one.size < 2)
                        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        static struct bench bench;
        struct device_message message;
        struct device_nonce nonce;
        struct device_key key;
        struct device_me me;
        int64_t a, b;

        if (size == 0)
                return 0;
        data++;
        size--;
        switch (data[-1] % 10) {
        case 0:
                (void)device_message_parse(data, size, &message);
                break;
        case 1:
                (void)device_parse_grant(data, size, "sensor-1", &key);
                break;
        case 2:
                (void)device_parse_me(data, size, &me);
                break;
        case 3:
                (void)device_parse_nonce(data, size, false, &nonce);
                break;
        case 4:
                (void)device_parse_nonce(data, size, true, &nonce);
                break;
        case 5:
                (void)device_parse_time(data, size, &a, &b);
                (void)device_parse_due(data, size);
                break;
        case 8:
                check_certificates((struct device_bytes){ data, size });
                break;
        default:
                memset(&bench, 0, sizeof bench);
                power_up(&bench, data[-1] % 10 == 7, data[-1] % 10 == 9);
                feed(&bench, data, size);
        }
        return 0;
}
