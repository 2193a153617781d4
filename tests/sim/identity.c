/* SPDX-License-Identifier: Apache-2.0 */

/* What the factory gave each device (id, PSK or IDevID, attestation key), and the registry file that tells
 * the gateway of it. */

#include "sim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/x509.h>

enum { POINT_SIZE = 65 };

int identity_make(struct identity *identity, const struct sim_options *options, unsigned number) {
        static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        struct dice dice;
        size_t i;

        memset(identity, 0, sizeof(*identity));
        if (snprintf(identity->id, sizeof(identity->id), "%s%04u", options->prefix, number + 1) > SIM_ID_MAX)
                return -ENAMETOOLONG;
        if (options->has_seed) {
                dice_seed(&dice, options->seed, number + UINT64_C(0x1000000));
                dice_fill(&dice, identity->factory_key, sizeof(identity->factory_key));
                dice_fill(&dice, identity->scalar, sizeof(identity->scalar));
        } else if (getrandom(identity->factory_key, sizeof(identity->factory_key), 0) < 0 ||
                   getrandom(identity->scalar, sizeof(identity->scalar), 0) < 0) {
                return -errno;
        }
        for (i = 0; i < sizeof(identity->factory_key); i++)
                identity->factory_key[i] = (uint8_t)alphabet[identity->factory_key[i] & 63];
        identity->scalar[0] &= 0x7f; /* below the order of P-256 */
        identity->scalar[31] |= 1;   /* and not zero */
        return 0;
}

static EVP_PKEY *make_key(const BIGNUM *scalar, const uint8_t *point) {
        OSSL_PARAM_BLD *builder = OSSL_PARAM_BLD_new();
        EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
        OSSL_PARAM *parameters = NULL;
        EVP_PKEY *key = NULL;

        if (builder && context &&
            OSSL_PARAM_BLD_push_utf8_string(builder, OSSL_PKEY_PARAM_GROUP_NAME, "prime256v1", 0) &&
            OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_PRIV_KEY, scalar) &&
            OSSL_PARAM_BLD_push_octet_string(builder, OSSL_PKEY_PARAM_PUB_KEY, point, POINT_SIZE) &&
            (parameters = OSSL_PARAM_BLD_to_param(builder)) && EVP_PKEY_fromdata_init(context) > 0)
                (void)EVP_PKEY_fromdata(context, &key, EVP_PKEY_KEYPAIR, parameters); /* key stays NULL */
        OSSL_PARAM_free(parameters);
        OSSL_PARAM_BLD_free(builder);
        EVP_PKEY_CTX_free(context);
        return key;
}

static EVP_PKEY *key_and_point(const uint8_t scalar[32], uint8_t encoded[POINT_SIZE]) {
        BIGNUM *number = BN_bin2bn(scalar, 32, NULL);
        EC_GROUP *group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
        EC_POINT *point = group ? EC_POINT_new(group) : NULL;
        EVP_PKEY *key = NULL;

        if (number && point && EC_POINT_mul(group, point, number, NULL, NULL, NULL) &&
            EC_POINT_point2oct(group, point, POINT_CONVERSION_UNCOMPRESSED, encoded, POINT_SIZE, NULL) == POINT_SIZE)
                key = make_key(number, encoded);
        EC_POINT_free(point);
        EC_GROUP_free(group);
        BN_clear_free(number);
        return key;
}

EVP_PKEY *private_key(const uint8_t scalar[32]) {
        uint8_t encoded[POINT_SIZE];

        return key_and_point(scalar, encoded);
}

int attester_open(struct attester *attester, const struct identity *identity) {
        uint8_t encoded[POINT_SIZE];

        attester->key = key_and_point(identity->scalar, encoded);
        if (!attester->key)
                return -ENOMEM;
        attester->ueid[0] = 0x01; /* RFC 9711 §4.2.1: RAND */
        SHA256(encoded, sizeof(encoded), attester->ueid + 1);
        return 0;
}

void attester_close(struct attester *attester) {
        EVP_PKEY_free(attester->key);
        attester->key = NULL;
}

int attester_sign(const struct attester *attester, const uint8_t *message, size_t size, uint8_t signature[64]) {
        EVP_MD_CTX *context = EVP_MD_CTX_new();
        ECDSA_SIG *pair = NULL;
        uint8_t der[80];
        const uint8_t *at = der;
        size_t der_size = sizeof(der);
        int r = -1;

        if (context && EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, attester->key) > 0 &&
            EVP_DigestSign(context, der, &der_size, message, size) > 0 &&
            (pair = d2i_ECDSA_SIG(NULL, &at, (long)der_size)) &&
            BN_bn2binpad(ECDSA_SIG_get0_r(pair), signature, 32) == 32 &&
            BN_bn2binpad(ECDSA_SIG_get0_s(pair), signature + 32, 32) == 32)
                r = 0;
        ECDSA_SIG_free(pair);
        EVP_MD_CTX_free(context);
        return r;
}

/* ---- the registry file ---- */

static void write_psk(FILE *file, const struct identity *identity, enum psk_form form) {
        unsigned char encoded[2 * SIM_FACTORY_KEY_SIZE];
        size_t i;

        switch (form) {
        case PSK_HEX:
                fputs("hex:", file);
                for (i = 0; i < sizeof(identity->factory_key); i++)
                        fprintf(file, "%02x", identity->factory_key[i]);
                return;
        case PSK_TEXT:
                fprintf(file, "text:%.*s", SIM_FACTORY_KEY_SIZE, (const char *)identity->factory_key);
                return;
        case PSK_BASE64:
                EVP_EncodeBlock(encoded, identity->factory_key, sizeof(identity->factory_key));
                fprintf(file, "base64:%s", (const char *)encoded);
                return;
        }
}

/* Public key in PEM; in JSON with its line ends escaped. */
static int write_pem(FILE *file, EVP_PKEY *key, bool is_json) {
        BIO *memory = BIO_new(BIO_s_mem());
        char *text;
        long size, i;
        int r = -ENOMEM;

        if (memory && PEM_write_bio_PUBKEY(memory, key) > 0) {
                size = BIO_get_mem_data(memory, &text);
                for (i = 0; i < size; i++)
                        if (text[i] == '\n' && is_json)
                                fputs("\\n", file);
                        else
                                fputc(text[i], file);
                r = 0;
        }
        BIO_free(memory);
        return r;
}

static int write_row(FILE *file, const struct sim *sim, const struct sim_device *device, bool is_json) {
        bool attests = sim->options.attests, has_psk = device->identity.idevid_size == 0;
        const char *profile = has_psk ? sim->options.profile : sim->options.certificate_profile;
        int r = 0;

        fprintf(file, is_json ? "%s  {\"id\": \"%s\", \"profile\": \"%s\"" : "%s%s,%s,",
                is_json && device->number ? ",\n" : "", device->identity.id, profile);
        if (is_json && has_psk)
                fputs(", \"psk\": \"", file);
        if (has_psk)
                write_psk(file, &device->identity, sim->options.psk_form);
        if (is_json && has_psk)
                fputc('"', file);
        if (attests) {
                fputs(is_json ? ", \"attestation_key\": \"" : ",\"", file);
                r = write_pem(file, device->attester.key, is_json);
                fputc('"', file);
        }
        fputc(is_json ? '}' : '\n', file);
        return r;
}

int identity_export(const struct sim *sim, const char *path) {
        size_t size = strlen(path);
        bool is_json = size > 5 && strcmp(path + size - 5, ".json") == 0;
        mode_t mask = umask(077); /* it holds keys */
        FILE *file = fopen(path, "w");
        unsigned i;
        int r = 0;

        umask(mask);
        if (!file)
                return -errno;
        fputs(is_json ? "[\n" : sim->options.attests ? "id,profile,psk,attestation_key\n" : "id,profile,psk\n", file);
        for (i = 0; i < sim->count && r == 0; i++)
                r = write_row(file, sim, &sim->devices[i], is_json);
        if (is_json)
                fputs("\n]\n", file);
        if (ferror(file))
                r = -EIO;
        if (fclose(file) != 0 && r == 0)
                r = -errno;
        return r;
}
