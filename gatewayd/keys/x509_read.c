/* SPDX-License-Identifier: Apache-2.0 */

/* Certificates as they come: taken out of their bytes, and what they say of themselves. */

#include "gatewayd/keys/x509_parts.h"

#include <errno.h>

#include <openssl/err.h>
#include <openssl/sha.h>

void x509_freep(X509 **certificate) {
        X509_free(*certificate);
}

void x509_stackp(STACK_OF(X509) * *stack) {
        sk_X509_pop_free(*stack, X509_free);
}

void x509_namep(X509_NAME **name) {
        X509_NAME_free(*name);
}

void x509_extensionsp(STACK_OF(X509_EXTENSION) * *extensions) {
        sk_X509_EXTENSION_pop_free(*extensions, X509_EXTENSION_free);
}

void x509_general_namesp(GENERAL_NAMES **names) {
        GENERAL_NAMES_free(*names);
}

void evp_pkey_freep(EVP_PKEY **key) {
        EVP_PKEY_free(*key);
}

static void openssl_freep(uint8_t **bytes) {
        OPENSSL_free(*bytes);
}

const char *x509_error(void) {
        const char *reason = ERR_reason_error_string(ERR_peek_last_error());

        ERR_clear_error();
        return reason ? reason : "no reason given";
}

X509 *x509_read(struct bytes der) {
        const uint8_t *at = der.data;
        X509 *certificate;

        if (der.size > INT32_MAX || !der_is_whole(der))
                return NULL;
        certificate = d2i_X509(NULL, &at, (long)der.size);
        if (certificate && at == der.data + der.size)
                return certificate;
        X509_free(certificate);
        ERR_clear_error();
        return NULL;
}

STACK_OF(X509) * x509_read_chain(struct bytes der) {
        _cleanup_(x509_stackp) STACK_OF(X509) *chain = sk_X509_new_null();
        STACK_OF(X509) * ret;
        struct der_item item;

        if (!chain)
                oom();
        while (der.size > 0) {
                X509 *certificate = NULL;

                if (sk_X509_num(chain) < CHAIN_MAX && der_take(&der, &item))
                        certificate = x509_read(item.whole);
                if (!certificate)
                        return NULL;
                if (sk_X509_push(chain, certificate) == 0)
                        oom();
        }
        if (sk_X509_num(chain) == 0)
                return NULL;
        ret = chain;
        chain = NULL;
        return ret;
}

int x509_write(X509 *certificate, struct buffer *to) {
        _cleanup_(openssl_freep) uint8_t *der = NULL;
        int size = i2d_X509(certificate, &der);

        if (size <= 0)
                return -EIO;
        buffer_append(to, BYTES(der, (size_t)size));
        return 0;
}

/* RFC 5280 §4.1.2.5: no well-defined expiry. */
static bool is_never(const ASN1_TIME *time) {
        static const char never[] = "99991231235959Z";

        return ASN1_STRING_length(time) == (int)sizeof never - 1 &&
               memcmp(ASN1_STRING_get0_data(time), never, sizeof never - 1) == 0;
}

/* By difference to 1970: time_t has 32 bits on some gateways. */
static int time_of(const ASN1_TIME *time, unix_sec *ret) {
        ASN1_TIME *epoch = ASN1_TIME_new();
        int days, seconds, r = -EBADMSG;

        if (!epoch)
                oom();
        if (ASN1_TIME_set_string(epoch, "19700101000000Z") == 1 && ASN1_TIME_diff(&days, &seconds, epoch, time) == 1) {
                *ret = (int64_t)days * 86400 + seconds;
                r = 0;
        }
        ASN1_TIME_free(epoch);
        return r;
}

int x509_validity_of(X509 *certificate, struct x509_validity *ret) {
        const ASN1_TIME *not_after = X509_get0_notAfter(certificate);

        if (ASN1_TIME_check(X509_get0_notBefore(certificate)) != 1 || ASN1_TIME_check(not_after) != 1 ||
            time_of(X509_get0_notBefore(certificate), &ret->not_before) < 0 ||
            time_of(not_after, &ret->not_after) < 0) {
                ERR_clear_error();
                return -EBADMSG;
        }
        if (is_never(not_after))
                ret->not_after = NOT_AFTER_NEVER;
        return 0;
}

int x509_key_digest(EVP_PKEY *key, uint8_t ret[CERTIFICATE_DIGEST_BYTES]) {
        _cleanup_(openssl_freep) uint8_t *der = NULL;
        int size = i2d_PUBKEY(key, &der);

        if (size <= 0)
                return -EIO;
        SHA256(der, (size_t)size, ret);
        return 0;
}

/* Of the bytes in the certificate: so it is there even where OpenSSL does not know the kind of key. */
static int describe_key(X509 *certificate, struct certificate *ret) {
        _cleanup_(openssl_freep) uint8_t *der = NULL;
        const ASN1_OCTET_STRING *ski = X509_get0_subject_key_id(certificate);
        int size = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &der);
        unsigned length;

        if (size <= 0)
                return -EBADMSG;
        SHA256(der, (size_t)size, ret->public_key);
        if (ski && ASN1_STRING_length(ski) == CERTIFICATE_SKI_BYTES)
                memcpy(ret->ski, ASN1_STRING_get0_data(ski), CERTIFICATE_SKI_BYTES);
        else if (X509_pubkey_digest(certificate, EVP_sha1(), ret->ski, &length) != 1)
                return -EBADMSG;
        return 0;
}

int x509_describe(X509 *certificate, struct certificate *ret) {
        const ASN1_INTEGER *serial = X509_get0_serialNumber(certificate);
        int serial_size = ASN1_STRING_length(serial), r;
        uint8_t digest[CERTIFICATE_DIGEST_BYTES];
        struct x509_validity validity;

        if (serial_size < 1 || serial_size > CERTIFICATE_SERIAL_MAX)
                return -EBADMSG;
        r = x509_validity_of(certificate, &validity);
        if (r >= 0)
                r = describe_key(certificate, ret);
        if (r >= 0 && X509_digest(certificate, EVP_sha256(), digest, NULL) != 1)
                r = -EIO;
        ERR_clear_error(); /* an SKI that cannot be read is one that is not there */
        if (r < 0)
                return r;
        bytes_to_hex(BYTES(digest, sizeof digest), ret->fingerprint);
        memset(ret->serial, 0, sizeof ret->serial);
        memcpy(ret->serial, ASN1_STRING_get0_data(serial), (size_t)serial_size);
        ret->serial_size = (size_t)serial_size;
        ret->not_before = validity.not_before;
        ret->not_after = validity.not_after;
        ret->revoked = REVOKED_NOT;
        return 0;
}

/* ---- the device it names ---- */

static bool is_device_id(struct bytes text) {
        static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-";

        if (text.size == 0 || text.size > DEVICE_ID_MAX)
                return false;
        for (size_t i = 0; i < text.size; i++)
                if (text.data[i] == 0 || !strchr(allowed, text.data[i]))
                        return false;
        return true;
}

/* Wider character sets (BMPString and the like) come out as UTF-8 too. */
static int take_id(const ASN1_STRING *string, char *to) {
        _cleanup_(openssl_freep) uint8_t *text = NULL;
        int size = string ? ASN1_STRING_to_UTF8(&text, string) : -1;

        if (size < 0 || !is_device_id(BYTES(text, (size_t)size))) {
                ERR_clear_error();
                return -EINVAL;
        }
        return bytes_to_text(BYTES(text, (size_t)size), to, DEVICE_ID_MAX + 1);
}

bool x509_string_is(const ASN1_STRING *string, const char *text) {
        _cleanup_(openssl_freep) uint8_t *utf8 = NULL;
        int size = string ? ASN1_STRING_to_UTF8(&utf8, string) : -1;

        if (size < 0)
                ERR_clear_error();
        return size >= 0 && bytes_equal(BYTES(utf8, (size_t)size), bytes_of(text));
}

static int id_in_names(X509 *certificate, char *to) {
        _cleanup_(x509_general_namesp) GENERAL_NAMES *names =
                X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);

        for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
                const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

                if (name->type == GEN_DNS || name->type == GEN_URI)
                        return take_id(name->d.ia5, to);
        }
        ERR_clear_error();
        return -ENOENT;
}

int x509_device_id(X509 *certificate, enum idevid_identity identity, char *to) {
        const X509_NAME *subject = X509_get_subject_name(certificate);
        int at;

        if (identity == IDEVID_SAN)
                return id_in_names(certificate, to);
        at = X509_NAME_get_index_by_NID(subject, NID_serialNumber, -1);
        if (at < 0)
                return -ENOENT;
        /* Two of them would be two devices. */
        if (X509_NAME_get_index_by_NID(subject, NID_serialNumber, at) >= 0)
                return -EINVAL;
        return take_id(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)), to);
}
