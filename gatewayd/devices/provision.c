/* SPDX-License-Identifier: Apache-2.0 */

/* POST /cred: the next PSK of a device. Asked again in the same session: the same key. In another
 * session: a key of its own, so that somebody who holds the old key too never shares the device's new
 * one; the first proven ends the others (proof.c). */

#include <errno.h>

#include "gatewayd/devices/grant_terms.h"
#include "gatewayd/keys/grant.h"

/* A kid that is taken already is drawn again; 82 random bits never need this many draws. */
#define KID_DRAWS 8

/* What one request asks for, checked against the profile. */
struct wish {
        enum content_format format;
        size_t key_size;
        bool is_text;
};

static int wish_format(const struct request *request, struct wish *ret, struct problem *problem) {
        const struct profile *profile = request->from->profile;

        switch (request->accept) {
        case FORMAT_NONE:
        case FORMAT_UCCS:
                ret->format = FORMAT_UCCS;
                return 0;
        case FORMAT_COSE_KEY:
                ret->format = FORMAT_COSE_KEY;
                return 0;
        case FORMAT_TEXT:
                if (!profile->text_grant)
                        return problem_set(problem, CODE_NOT_ACCEPTABLE, EPROTONOSUPPORT, "not acceptable",
                                           "profile %s gives no grants as text; there are 601 and 101", profile->name);
                ret->format = FORMAT_TEXT;
                return 0;
        default:
                return problem_set(problem, CODE_NOT_ACCEPTABLE, EPROTONOSUPPORT, "not acceptable",
                                   "a grant comes as 601 (uccs+cbor), 101 (cose-key)%s",
                                   profile->text_grant ? " or 0 (text)" : "");
        }
}

static int wish_read(const struct request *request, struct wish *ret, struct problem *problem) {
        const struct profile *profile = request->from->profile;
        int r;

        r = wish_format(request, ret, problem);
        if (r < 0)
                return r;
        if (request->payload.size > 0 && request->content_format != FORMAT_NONE &&
            request->content_format != FORMAT_CBOR)
                return problem_set(problem, CODE_UNSUPPORTED_FORMAT, EPROTONOSUPPORT, "unsupported content format",
                                   "the body is empty or application/cbor (60)");
        r = grant_request_read(request->payload, &ret->key_size, problem);
        if (r < 0)
                return r;
        if (ret->key_size > profile->psk_bytes)
                return problem_set(problem, CODE_BAD_REQUEST, EINVAL, "bad request",
                                   "key-size may be 16 to %zu in profile %s", profile->psk_bytes, profile->name);
        if (ret->key_size == 0)
                ret->key_size = profile->psk_bytes;
        ret->is_text = profile->psk_format == PSK_TEXT && grant_key_fits_text(ret->key_size);
        if (ret->format == FORMAT_TEXT && !ret->is_text)
                return problem_set(problem, CODE_NOT_ACCEPTABLE, EPROTONOSUPPORT, "not acceptable",
                                   "a key of %zu bytes is not text in profile %s", ret->key_size, profile->name);
        return 0;
}

/* The key given before in this session, or NULL. */
static struct credential *find_asked(struct keyring *keyring, const struct identity *from) {
        for (size_t i = 0; i < keyring->count; i++) {
                struct credential *c = &keyring->list[i];

                if (c->kind == CREDENTIAL_PSK && c->state == KEY_PRE_ACTIVE && from->session != 0 &&
                    c->session == from->session && strcmp(c->predecessor, from->credential.identity) == 0)
                        return c;
        }
        return NULL;
}

/* Never a device's id, never an existing kid: identities are looked up as one. */
static int draw_kid(struct turn *turn, char *to) {
        for (int i = 0; i < KID_DRAWS; i++) {
                struct credential credential;
                struct device device;
                int r;

                r = grant_kid_make(to);
                if (r < 0)
                        return r;
                r = credential_get(turn->store, bytes_of(to), &credential);
                if (r == -ENOENT)
                        r = device_get(turn->store, bytes_of(to), &device);
                if (r == -ENOENT)
                        return 0;
                if (r < 0)
                        return r;
        }
        return -EEXIST;
}

static int mint(struct turn *turn, const struct identity *from, struct device *device, const struct wish *wish,
                struct credential *ret, struct secret *ret_key) {
        int r;

        grant_begin(turn, from, device, CREDENTIAL_PSK, ret);
        r = draw_kid(turn, ret->identity);
        if (r < 0)
                return r;
        r = grant_key_make(wish->key_size, wish->is_text, ret_key);
        return r < 0 ? r : grant_finish(turn, from, device, ret, ret_key);
}

/* The key of this session: the one given before, or a new one. */
static int find_or_mint(struct turn *turn, const struct identity *from, const struct wish *wish, struct credential *ret,
                        struct secret *ret_key) {
        struct device device = from->device;
        struct credential *asked;
        struct keyring keyring;
        int r;

        r = keyring_load(turn, device.id, &keyring);
        if (r < 0)
                return r;
        asked = find_asked(&keyring, from);
        if (asked) {
                r = credential_secret(turn->store, asked->identity, ret_key);
                if (r < 0)
                        return r;
                *ret = *asked;
                if (ret_key->size == wish->key_size)
                        return 0;
                /* Another size is another wish: the first key could not be used. */
                r = step_destroy(turn, asked, "asked again for a key of another size");
                if (r < 0)
                        return r;
                keyring_drop(&keyring, (size_t)(asked - keyring.list));
        }
        r = keyring_make_room(turn, from, &device, &keyring);
        return r < 0 ? r : mint(turn, from, &device, wish, ret, ret_key);
}

static void put_grant(const struct identity *from, const struct wish *wish, const struct credential *credential,
                      const struct secret *key, struct reply *reply) {
        /* Dates as of the issue, so that asking again gives the same grant to the byte. */
        const struct moment *issued = &credential->issued;
        struct grant grant = {
                .subject = bytes_of(credential->device),
                .kid = bytes_of(credential->identity),
                .key = secret_bytes(key),
                .has_dates = issued->quality != CLOCK_UNKNOWN && issued->wall_trusted,
                .issued = issued->wall,
        };

        grant.has_expiry = grant.has_dates && from->profile->on_overdue != OVERDUE_KEEP &&
                           !__builtin_add_overflow(issued->wall, from->profile->max_age_sec, &grant.expires);
        grant_write(&grant, wish->format, &reply->payload);
        reply->code = CODE_CHANGED;
        reply->content_format = (int32_t)wish->format;
        reply->max_age_sec = 0;
}

int handle_cred(struct turn *turn, const struct request *request, struct reply *reply, struct problem *problem) {
        _cleanup_(secret_wipe) struct secret key = { 0 };
        struct credential credential;
        struct wish wish = { 0 };
        int r;

        r = grant_terms_check(turn, request->from, problem);
        if (r < 0)
                return r;
        r = wish_read(request, &wish, problem);
        if (r < 0)
                return r;
        r = find_or_mint(turn, request->from, &wish, &credential, &key);
        if (r < 0)
                return r;
        put_grant(request->from, &wish, &credential, &key, reply);
        return 0;
}
