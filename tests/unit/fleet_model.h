/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A device by the two-slot rules of PROTOCOL.md ("The PSK grant"), written for tests of the gateway's side
 * and on purpose not the device that is shipped as an example. */

#include "gatewayd/secret.h"
#include "store/devices.h"

/* A PSK, or a certificate, of which the model only needs the fingerprint. */
struct model_key {
        char identity[DEVICE_ID_MAX + 1]; /* empty: no key */
        struct secret key;
        bool has_worked;
};

struct model_device {
        char id[DEVICE_ID_MAX + 1];
        struct model_key factory, newest, second;
        int64_t failing_since; /* the first failure since the last success with the newest key; -1 none */
        int64_t last_success;  /* with any key */
        unsigned grants, proofs, fallbacks;
};

enum model_outcome {
        MODEL_CONNECTED,
        MODEL_REFUSED, /* an alert, which anybody could have forged */
        MODEL_SILENT,
};

/* The air between device and gateway. Requests return a CoAP code, or -1 without an answer. */
struct model_air {
        enum model_outcome (*connect)(void *userdata, struct model_device *device, const struct model_key *key);
        int (*me)(void *userdata, struct model_device *device, uint32_t *ret_due);
        int (*attest)(void *userdata, struct model_device *device);
        int (*anchors)(void *userdata, struct model_device *device);
        int (*cred)(void *userdata, struct model_device *device, struct model_key *ret);
        bool (*reboots)(void *userdata); /* the device loses its session and its plans, not its slots */
        void *userdata;
};

/* One time awake. Returns whether the device is content: its newest key worked and nothing is left due. */
bool model_wake(struct model_device *device, const struct model_air *air, int64_t now);
