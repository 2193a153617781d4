/* SPDX-License-Identifier: Apache-2.0 */

/* The manufacturer of the devices with certificates: a CA of its own that gives each an IDevID (IEEE 802.1AR):
 * serialNumber, and no end (99991231235959Z: RFC 5280 §4.1.2.5). Its certificate is what a profile of the gateway
 * names in `idevid_anchors`; its key lies beside it, for as many runs as the fleet has. */

#include "sim.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include <openssl/core_names.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

struct extension {
        int nid;
        const char *value;
};

static bool extend(X509 *certificate, X509 *issuer, const struct extension *extensions, size_t count) {
        X509_EXTENSION *extension;
        X509V3_CTX context;
        bool is_good = true;
        size_t i;

        X509V3_set_ctx_nodb(&context);
        X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
        for (i = 0; i < count && is_good; i++) {
                extension = X509V3_EXT_conf_nid(NULL, &context, extensions[i].nid, extensions[i].value);
                is_good = extension && X509_add_ext(certificate, extension, -1);
                X509_EXTENSION_free(extension);
        }
        return is_good;
}

static bool set_name(X509_NAME *name, const char *serial, const char *common) {
        return X509_NAME_add_entry_by_NID(name, NID_organizationName, MBSTRING_ASC,
                                          (const uint8_t *)"gateway-sim manufacturing", -1, -1, 0) &&
               (!common ||
                X509_NAME_add_entry_by_NID(name, NID_commonName, MBSTRING_ASC, (const uint8_t *)common, -1, -1, 0)) &&
               (!serial ||
                X509_NAME_add_entry_by_NID(name, NID_serialNumber, MBSTRING_ASC, (const uint8_t *)serial, -1, -1, 0));
}

static bool set_serial(X509 *certificate) {
        uint8_t bytes[16];
        BIGNUM *number;
        bool is_good;

        if (RAND_bytes(bytes, sizeof(bytes)) != 1)
                return false;
        bytes[0] = (uint8_t)((bytes[0] & 0x7f) | 0x40);
        number = BN_bin2bn(bytes, sizeof(bytes), NULL);
        is_good = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate));
        BN_free(number);
        return is_good;
}

/* Everything but names and extensions; from long ago, so that a clock that lags does not matter. */
static X509 *blank(EVP_PKEY *key) {
        X509 *certificate = X509_new();

        if (certificate && X509_set_version(certificate, X509_VERSION_3) && set_serial(certificate) &&
            ASN1_TIME_set_string(X509_getm_notBefore(certificate), "20200101000000Z") &&
            ASN1_TIME_set_string(X509_getm_notAfter(certificate), "99991231235959Z") &&
            X509_set_pubkey(certificate, key))
                return certificate;
        X509_free(certificate);
        return NULL;
}

static bool found(struct manufacturer *manufacturer) {
        static const struct extension extensions[] = {
                { NID_basic_constraints, "critical,CA:TRUE,pathlen:0" },
                { NID_key_usage, "critical,keyCertSign,cRLSign" },
                { NID_subject_key_identifier, "hash" },
        };
        X509 *certificate;

        manufacturer->key = EVP_EC_gen("P-256");
        certificate = manufacturer->certificate = manufacturer->key ? blank(manufacturer->key) : NULL;
        return certificate && set_name(X509_get_subject_name(certificate), NULL, "IDevID CA") &&
               X509_set_issuer_name(certificate, X509_get_subject_name(certificate)) &&
               extend(certificate, certificate, extensions, sizeof(extensions) / sizeof(extensions[0])) &&
               X509_sign(certificate, manufacturer->key, EVP_sha256()) > 0;
}

static int keep(const struct manufacturer *manufacturer, const char *path, const char *key_path) {
        mode_t mask = umask(077);
        FILE *key_file = fopen(key_path, "w"), *file;
        int r = -EIO;

        umask(mask);
        file = key_file ? fopen(path, "w") : NULL;
        if (file && PEM_write_PrivateKey(key_file, manufacturer->key, NULL, NULL, 0, NULL, NULL) == 1 &&
            PEM_write_X509(file, manufacturer->certificate) == 1)
                r = 0;
        if (key_file && fclose(key_file) != 0)
                r = -EIO;
        if (file && fclose(file) != 0)
                r = -EIO;
        return r;
}

int manufacturer_open(struct manufacturer *manufacturer, const char *path) {
        char key_path[4096];
        FILE *file, *key_file;

        if (snprintf(key_path, sizeof(key_path), "%s.key", path) >= (int)sizeof(key_path))
                return -ENAMETOOLONG;
        file = fopen(path, "r");
        if (!file)
                return errno != ENOENT ? -errno : found(manufacturer) ? keep(manufacturer, path, key_path) : -ENOMEM;
        manufacturer->certificate = PEM_read_X509(file, NULL, NULL, NULL);
        fclose(file);
        key_file = fopen(key_path, "r");
        if (!key_file)
                return -errno;
        manufacturer->key = PEM_read_PrivateKey(key_file, NULL, NULL, NULL);
        fclose(key_file);
        return manufacturer->certificate && manufacturer->key ? 0 : -EINVAL;
}

void manufacturer_close(struct manufacturer *manufacturer) {
        X509_free(manufacturer->certificate);
        EVP_PKEY_free(manufacturer->key);
        *manufacturer = (struct manufacturer){ 0 };
}

int manufacturer_equip(const struct manufacturer *manufacturer, struct identity *identity) {
        static const struct extension extensions[] = {
                { NID_key_usage, "critical,digitalSignature" },
                { NID_subject_key_identifier, "hash" },
                { NID_authority_key_identifier, "keyid" },
        };
        EVP_PKEY *key = EVP_EC_gen("P-256");
        X509 *certificate = key ? blank(key) : NULL;
        uint8_t *at = identity->idevid;
        int size = 0;

        if (certificate && set_name(X509_get_subject_name(certificate), identity->id, NULL) &&
            X509_set_issuer_name(certificate, X509_get_subject_name(manufacturer->certificate)) &&
            extend(certificate, manufacturer->certificate, extensions, sizeof(extensions) / sizeof(extensions[0])) &&
            X509_sign(certificate, manufacturer->key, EVP_sha256()) > 0 && private_key_bytes(key, identity->idevid_key))
                size = i2d_X509(certificate, NULL);
        if (size > 0 && (size_t)size <= sizeof(identity->idevid))
                identity->idevid_size = (uint16_t)i2d_X509(certificate, &at);
        X509_free(certificate);
        EVP_PKEY_free(key);
        return identity->idevid_size > 0 ? 0 : -ENOMEM;
}
