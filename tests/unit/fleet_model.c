/* SPDX-License-Identifier: Apache-2.0 */

/* The device of the fleet's property test: two slots, no clock but its own, no secret handshakes with the
 * gateway's code. */

#include "tests/unit/fleet_model.h"

#include "gatewayd/problem.h"

#define FALLBACK_SEC 86400 /* without one success with the newest key: the second slot may be tried */
#define ROUNDS       4     /* of doing what /me says within one session */

static bool is_set(const struct model_key *key) {
        return key->identity[0] != '\0';
}

/* The grant goes into the second slot and becomes the newest; what it was asked over stays beside it. */
static void store_grant(struct model_device *device, const struct model_key *over, const struct model_key *grant) {
        struct model_key before = *over; /* may be the slot that is overwritten */

        device->second = before;
        device->newest = *grant;
        device->failing_since = -1;
        device->grants++;
}

/* Does what /me says. 1: a new key was stored, connect with it; 0: nothing is left due; -1: gave up. */
static int work(struct model_device *device, const struct model_air *air, const struct model_key *over) {
        for (int round = 0; round < ROUNDS; round++) {
                struct model_key grant = { 0 };
                uint32_t due;
                int code;

                if (air->reboots(air->userdata) || air->me(air->userdata, device, &due) != CODE_CONTENT)
                        return -1;
                if (due == 0)
                        return 0;
                if (due & DUE_ATTEST && air->attest(air->userdata, device) < 0)
                        return -1;
                if (due & DUE_ANCHORS && air->anchors(air->userdata, device) != CODE_CONTENT)
                        return -1;
                if (!(due & DUE_ROTATE))
                        continue;
                code = air->cred(air->userdata, device, &grant);
                if (code == CODE_CHANGED) {
                        if (air->reboots(air->userdata))
                                return -1; /* the grant came and was not stored */
                        store_grant(device, over, &grant);
                        return air->reboots(air->userdata) ? -1 : 1;
                }
                if (code < 0)
                        return -1;
        }
        return -1;
}

/* Connects with the newest key, or, by the rules, with the second. Returns the key that worked, or NULL. */
static struct model_key *connect_any(struct model_device *device, const struct model_air *air, int64_t now) {
        enum model_outcome outcome;

        if (!is_set(&device->newest)) {
                if (air->connect(air->userdata, device, &device->factory) != MODEL_CONNECTED)
                        return NULL;
                return &device->factory;
        }
        outcome = air->connect(air->userdata, device, &device->newest);
        if (outcome == MODEL_REFUSED && !device->newest.has_worked && is_set(&device->second)) {
                device->newest = device->second;
                device->second = (struct model_key){ 0 };
                outcome = air->connect(air->userdata, device, &device->newest);
        }
        if (outcome == MODEL_CONNECTED) {
                device->proofs += !device->newest.has_worked;
                device->newest.has_worked = true;
                device->failing_since = -1;
                return &device->newest;
        }
        if (device->failing_since < 0)
                device->failing_since = now;
        if (now - device->failing_since < FALLBACK_SEC || !is_set(&device->second))
                return NULL;
        if (air->connect(air->userdata, device, &device->second) != MODEL_CONNECTED)
                return NULL;
        device->fallbacks++;
        return &device->second;
}

bool model_wake(struct model_device *device, const struct model_air *air, int64_t now) {
        for (int session = 0; session < ROUNDS; session++) {
                struct model_key *over = connect_any(device, air, now);
                int r;

                if (!over)
                        return false;
                device->last_success = now;
                r = work(device, air, over);
                if (r <= 0)
                        return r == 0 && over == &device->newest;
        }
        return false;
}
