/* SPDX-License-Identifier: Apache-2.0 */

/* Attestation by a device: from the challenge to the evidence, and what follows from the answer to it. See
 * device.h. */

#include "device_parts.h"

bool device_take_nonce(struct device *device, const struct device_reply *reply) {
        struct device_nonce nonce;
        struct device_reply made = { 0, DEVICE_FORMAT_EAT_CWT, 0, { NULL, 0 } };

        if (reply->content_format != DEVICE_FORMAT_CBOR && reply->content_format != DEVICE_FORMAT_OCTETS)
                return false;
        if (!device_parse_nonce(reply->body.data, reply->body.size, reply->content_format == DEVICE_FORMAT_OCTETS,
                                &nonce))
                return false;
        device->evidence_size =
                device_build_evidence(&device->config.claims, device->config.id, &nonce, device->port.sign,
                                      device->port.user, device->evidence, sizeof(device->evidence));
        if (device->evidence_size == 0)
                return false;
        made.body.data = device->evidence;
        made.body.size = device->evidence_size;
        device->task = TASK_EVIDENCE;
        device_report(device, DEVICE_EVENT_EVIDENCE_SENT, &made);
        return true;
}

void device_evidence_taken(struct device *device, const struct device_reply *reply, uint64_t now) {
        device->evidence_size = 0;
        device->attest_at = DEVICE_NEVER;
        device_lengthen(&device->attest_pause_sec); /* forgotten once /me no longer asks */
        device->me_at = now;
        if (device->grant_needs_evidence) {
                device->grant_needs_evidence = false;
                device->grant_at = now;
        }
        device_report(device, DEVICE_EVENT_EVIDENCE_ACCEPTED, reply);
}

/* The challenge is used up or too old, or this evidence is not wanted: what is kept is worthless. A
 * new challenge is asked for at once the first time. */
void device_evidence_denied(struct device *device, const struct device_reply *reply, uint64_t now) {
        bool needs_nonce = reply->code == DEVICE_CODE(4, 9) || reply->code == DEVICE_CODE(4, 22);

        device->evidence_size = 0;
        if (needs_nonce && device->attest_pause_sec == 0) {
                device_lengthen(&device->attest_pause_sec);
                device->attest_at = now;
        } else {
                device_postpone(device, TASK_EVIDENCE, reply, now);
        }
}
