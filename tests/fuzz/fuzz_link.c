/* SPDX-License-Identifier: Apache-2.0 */

/* Link frames: whatever a broken-in role sends, a reader takes it whole or refuses it, and what it took
 * is written back to the same bytes. */

#include <assert.h>
#include <stdlib.h>

#include "gatewayd/messages.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TRY(name)                                                                                                      \
        do {                                                                                                           \
                struct message_##name m = { 0 };                                                                       \
                struct buffer again = { 0 };                                                                           \
                if (message_read_##name(frame.body, &m) == 0) {                                                        \
                        message_write_##name(&m, &again);                                                              \
                        assert(bytes_equal(buffer_bytes(&again), frame.body));                                         \
                }                                                                                                      \
                buffer_free(&again);                                                                                   \
        } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        struct frame frame;

        if (frame_parse(BYTES(data, size), &frame) < 0)
                return 0;
        TRY(setup);
        TRY(psk);
        TRY(psk_answer);
        TRY(connected);
        TRY(closed);
        TRY(request);
        TRY(reply);
        TRY(evict);
        TRY(handshake_failed);
        TRY(record);
        TRY(delivered);
        TRY(parked);
        TRY(result);
        TRY(uplink);
        TRY(north_hello);
        return 0;
}
