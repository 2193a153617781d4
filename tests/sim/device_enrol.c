/* SPDX-License-Identifier: Apache-2.0 */

/* Certificates of a device: by what it knows the gateway (the anchors), and how it comes to its next one by
 * EST over CoAP (RFC 9148). See device.h. */

#include "device_parts.h"

#include "device_certificates.h"

#include <string.h>

bool device_holds_certificates(const struct device *device) {
        return device->config.idevid.size > 0;
}

/* ---- the anchors ---- */

struct device_bytes device_anchors(const struct device *device) {
        struct device_bytes kept = { device->memory.anchors, device->memory.anchors_size };

        if (!device_holds_certificates(device))
                return (struct device_bytes){ NULL, 0 };
        return kept.size > 0 ? kept : device->config.anchors;
}

bool device_is_provisional(const struct device *device) {
        return device_holds_certificates(device) && device_anchors(device).size == 0;
}

/* What is fetched replaces what was there: a CA that is no longer among them is not trusted any more. From
 * a gateway that was itself known by anchors they need no further proof. Where the flash fails they hold until
 * the next power cut; fetching them again is tried. */
bool device_keep_anchors(struct device *device, const struct device_reply *reply, bool *is_stored) {
        struct device_memory *memory = &device->memory;
        bool is_proven = !device_is_provisional(device);
        struct device_bytes list;

        if (reply->content_format != DEVICE_FORMAT_PKCS7_CERTS || !device_read_certs_only(reply->body, &list) ||
            list.size > sizeof(memory->anchors))
                return false;
        memcpy(memory->anchors, list.data, list.size);
        memory->anchors_size = (uint16_t)list.size;
        memory->anchors_proven = is_proven;
        *is_stored = device_store(device);
        return true;
}

void device_anchors_held(struct device *device) {
        if (device->memory.anchors_size == 0 || device->memory.anchors_proven)
                return;
        device->memory.anchors_proven = 1;
        (void)device_store(device); /* not stored, the next handshake proves them again */
}

/* Anchors of a first contact by which no gateway can be known after it were somebody's bad joke. */
void device_anchors_failed(struct device *device, uint64_t now) {
        if (device->memory.anchors_size == 0 || device->memory.anchors_proven || device->memory.has_newest)
                return;
        device->memory.anchors_size = 0;
        device->anchors_at = now;
        (void)device_store(device); /* reported; they fail again after a power cut */
}

/* ---- the next certificate ---- */

/* An LDevID is renewed with itself; whatever came from the factory enrols (RFC 7030 §4.2.1, §4.2.2). */
const char *device_enrol_path(const struct device *device) {
        return device->choice == DEVICE_KEY_FACTORY ? ".well-known/est/sen" : ".well-known/est/sren";
}

bool device_ask_certificate(struct device *device, struct device_bytes *csr) {
        struct device_memory *memory = &device->memory;
        const struct device_key *used = device_key_of(device, device->choice);
        struct device_bytes certificate = { used->certificate, used->certificate_size };
        struct device_key key;

        if (memory->csr_size == 0) {
                memset(&key, 0, sizeof(key));
                memory->csr_size = (uint16_t)device->port.request(device->port.user, certificate, &key, memory->csr,
                                                                  sizeof(memory->csr));
                if (memory->csr_size == 0)
                        return false;
                memcpy(memory->asked_key, key.key, sizeof(memory->asked_key));
                memory->asked_key_size = key.key_size;
                if (!device_store(device)) {
                        memory->csr_size = 0;
                        return false;
                }
        }
        csr->data = memory->csr;
        csr->size = memory->csr_size;
        return true;
}

void device_forget_request(struct device *device) {
        device->memory.csr_size = 0; /* in flash with the next change; until then it may be asked once more */
}

/* An answer may carry the CA's certificates too, in any order (a SET). */
bool device_read_certificate(struct device *device, const struct device_reply *reply, struct device_key *key) {
        const struct device_memory *memory = &device->memory;
        struct device_bytes list = reply->body, one;

        if (reply->content_format == DEVICE_FORMAT_PKCS7_CERTS) {
                if (!device_read_certs_only(reply->body, &list))
                        return false;
        } else if (reply->content_format != DEVICE_FORMAT_PKIX_CERT) {
                return false;
        }
        memset(key, 0, sizeof(*key));
        memcpy(key->key, memory->asked_key, sizeof(key->key));
        key->key_size = memory->asked_key_size;
        while (device_next_certificate(&list, &one)) {
                if (one.size > sizeof(key->certificate) || device->port.matches(device->port.user, key, one) != 0)
                        continue;
                memcpy(key->certificate, one.data, one.size);
                key->certificate_size = (uint16_t)one.size;
                return true;
        }
        return false;
}
