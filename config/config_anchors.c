/* SPDX-License-Identifier: Apache-2.0 */

/* X.509 in the configuration: the certificates of manufacturers out of the files that profiles name (PEM or
 * DER, any number in one), and the CA's name. Whether they may be trusted for anything is not judged here. */

#include "config/loader.h"

#include <errno.h>
#include <stdlib.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/x509v3.h>

#define ANCHORS_MAX 256 /* of one profile */

struct intake {
        struct loader *loader;
        struct profile *profile;
        const struct named_file *file;
        size_t number; /* of the certificate in its file, from 1 */
};

/* "profile "x": idevid_anchors: file, certificate 2: …" */
static void anchor_problem(const struct intake *in, const char *what) {
        loader_problem(in->loader, in->file->place, "profile \"%s\": idevid_anchors: %s%s", in->profile->name,
                       in->file->path, what);
}

static void certificate_message(const struct intake *in, bool is_warning, const char *what) {
        (is_warning ? loader_warning : loader_problem)(in->loader, in->file->place,
                                                       "profile \"%s\": idevid_anchors: %s, certificate %zu: %s",
                                                       in->profile->name, in->file->path, in->number, what);
}

static void judge(const struct intake *in, X509 *certificate) {
        EVP_PKEY *key = X509_get0_pubkey(certificate);
        int is_ca = X509_check_ca(certificate);

        if (!key)
                certificate_message(in, true, "its public key is of a kind that is not understood");
        else if (EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA && EVP_PKEY_get_bits(key) < 2048)
                certificate_message(in, true, "an RSA key of less than 2048 bits can be broken");
        if (is_ca == 0)
                certificate_message(in, true,
                                    "is no CA certificate (basicConstraints, RFC 5280 §4.2.1.9): no IDevID "
                                    "leads to it");
        else if (is_ca != 1)
                certificate_message(in, true, "does not say that it is a CA (basicConstraints, RFC 5280 §4.2.1.9)");
}

static bool is_known(const struct profile *profile, const uint8_t digest[32]) {
        for (size_t i = 0; i < profile->anchor_count; i++)
                if (memcmp(profile->anchors[i].digest, digest, 32) == 0)
                        return true;
        return false;
}

static void keep(struct profile *profile, struct bytes der) {
        struct anchor anchor = { .size = der.size }, *grown;

        SHA256(der.data, der.size, anchor.digest);
        if (is_known(profile, anchor.digest))
                return;
        grown = reallocarray(profile->anchors, profile->anchor_count + 1, sizeof *grown);
        anchor.der = malloc(der.size);
        if (!grown || !anchor.der)
                oom();
        memcpy(anchor.der, der.data, der.size);
        profile->anchors = grown;
        profile->anchors[profile->anchor_count++] = anchor;
}

/* Takes one certificate off the front of `der`. Returns its size, or 0 after telling why not. */
static size_t take_der(struct intake *in, struct bytes der) {
        const unsigned char *end = der.data;
        X509 *certificate = d2i_X509(NULL, &end, der.size > INT32_MAX ? INT32_MAX : (long)der.size);
        size_t size = certificate ? (size_t)(end - der.data) : 0;

        ERR_clear_error();
        in->number++;
        if (!certificate)
                certificate_message(in, false, "is no certificate in DER");
        else if (in->profile->anchor_count == ANCHORS_MAX) {
                certificate_message(in, false, "more than 256 of one profile are not taken");
                size = 0;
        } else {
                judge(in, certificate);
                keep(in->profile, BYTES(der.data, size));
        }
        X509_free(certificate);
        ERR_clear_error();
        return size;
}

static bool take_pem_block(struct intake *in, const char *name, struct bytes der) {
        size_t size;

        if (strcmp(name, PEM_STRING_X509) != 0 && strcmp(name, PEM_STRING_X509_OLD) != 0) {
                loader_problem(in->loader, in->file->place,
                               "profile \"%s\": idevid_anchors: %s: holds a \"%s\"; only certificates belong there",
                               in->profile->name, in->file->path, name);
                return false;
        }
        size = take_der(in, der);
        if (size > 0 && size < der.size)
                certificate_message(in, false, "more follows within its block");
        return size == der.size;
}

/* Whether the reader stopped because there is no further block. */
static bool is_end_of_pem(void) {
        unsigned long error = ERR_peek_last_error();

        ERR_clear_error();
        return ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
}

static void take_pem(struct intake *in, struct bytes text) {
        BIO *bio = BIO_new_mem_buf(text.data, (int)text.size);
        bool is_good = true;

        if (!bio)
                oom();
        while (is_good) {
                char *name = NULL, *header = NULL;
                unsigned char *data = NULL;
                long size = 0;

                if (PEM_read_bio(bio, &name, &header, &data, &size) != 1) {
                        if (!is_end_of_pem()) {
                                in->number++;
                                certificate_message(in, false, "its PEM is damaged");
                        }
                        break;
                }
                is_good = take_pem_block(in, name, BYTES(data, (size_t)size));
                OPENSSL_free(name);
                OPENSSL_free(header);
                OPENSSL_free(data);
        }
        BIO_free(bio);
}

static bool is_pem(struct bytes content) {
        return memmem(content.data, content.size, "-----BEGIN ", 11) != NULL;
}

static void take_file(struct intake *in) {
        char path[4096], folder[4096], reason[64];
        struct bytes content;
        size_t errors = in->loader->error_count, size;
        int r;

        path_folder(in->loader->files[0], folder, sizeof folder);
        if (snprintf(path, sizeof path, "%s%s%s", in->file->path[0] == '/' ? "" : folder,
                     in->file->path[0] == '/' ? "" : "/", in->file->path) >= (int)sizeof path)
                return anchor_problem(in, ": the path is too long");
        r = attachment_get(in->loader->attachments, path, &content);
        if (r < 0) {
                snprintf(reason, sizeof reason, ": %s",
                         r == -ENFILE   ? "more files than one configuration may name"
                         : r == -EINVAL ? "is no regular file"
                                        : strerror(-r));
                return anchor_problem(in, reason);
        }
        if (is_pem(content))
                take_pem(in, content);
        else
                for (; content.size > 0; content = BYTES(content.data + size, content.size - size)) {
                        size = take_der(in, content);
                        if (size == 0)
                                break;
                }
        if (in->number == 0 && in->loader->error_count == errors)
                anchor_problem(in, ": holds no certificate");
}

void loader_read_anchors(struct loader *loader) {
        for (size_t i = 0; i < loader->config->profile_count; i++)
                for (size_t j = 0; j < loader->profiles[i].anchor_count; j++) {
                        struct intake in = {
                                .loader = loader,
                                .profile = &loader->config->profiles[i],
                                .file = &loader->profiles[i].anchors[j],
                        };

                        take_file(&in);
                }
}

/* ---- names ---- */

/* Reads "TYPE=value" up to a comma that no backslash precedes. Returns where the next part begins, or NULL. */
static const char *take_part(const char *at, X509_NAME *name, char *problem) {
        char type[64], value[CONFIG_TEXT_MAX];
        size_t size = 0;
        const char *equals;

        at += strspn(at, " ");
        equals = strchr(at, '=');
        if (!equals || equals == at || (size_t)(equals - at) >= sizeof type) {
                snprintf(problem, 160, "each part is TYPE=value, such as CN=Plant 7 CA");
                return NULL;
        }
        memcpy(type, at, (size_t)(equals - at));
        type[equals - at] = '\0';
        for (at = equals + 1; *at != '\0' && *at != ',' && size + 1 < sizeof value; at++) {
                if (*at == '\\' && at[1] != '\0')
                        at++;
                value[size++] = *at;
        }
        while (size > 0 && value[size - 1] == ' ')
                size--;
        value[size] = '\0';
        if (size == 0 || X509_NAME_add_entry_by_txt(name, type, MBSTRING_UTF8, (const unsigned char *)value, (int)size,
                                                    -1, 0) != 1) {
                snprintf(problem, 160, "\"%.40s=%.40s\" is no part that X.509 takes (type, or length of the value)",
                         type, value);
                return NULL;
        }
        return *at == ',' ? at + 1 : at;
}

bool subject_is_sound(const char *subject, char *problem) {
        X509_NAME *name = X509_NAME_new();
        const char *at = subject;

        if (!name)
                oom();
        do
                at = take_part(at, name, problem);
        while (at && *at != '\0');
        X509_NAME_free(name);
        ERR_clear_error();
        return at != NULL;
}
