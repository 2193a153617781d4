/* SPDX-License-Identifier: Apache-2.0 */

/* Distinguished names as people write them: "CN=Plant 7 CA, O=Example". */

#include "gatewayd/keys/x509_parts.h"

#include <ctype.h>

#include <openssl/err.h>

static const struct {
        const char *key;
        int nid;
} attributes[] = {
        { "CN", NID_commonName },
        { "O", NID_organizationName },
        { "OU", NID_organizationalUnitName },
        { "C", NID_countryName },
        { "L", NID_localityName },
        { "ST", NID_stateOrProvinceName },
        { "serialNumber", NID_serialNumber },
        { "DC", NID_domainComponent },
};

/* serialNumber and country are PrintableStrings (RFC 5280 appendix A.1), which has no "_": a device id that
 * has one goes into a UTF8String. All readers tried take it. */
static int type_for(int nid, const char *text) {
        if (nid == NID_domainComponent)
                return V_ASN1_IA5STRING;
        if (nid != NID_serialNumber && nid != NID_countryName)
                return V_ASN1_UTF8STRING;
        return ASN1_PRINTABLE_type((const uint8_t *)text, -1) == V_ASN1_PRINTABLESTRING ? V_ASN1_PRINTABLESTRING
                                                                                        : V_ASN1_UTF8STRING;
}

bool x509_name_add(X509_NAME *name, int nid, const char *text) {
        return X509_NAME_add_entry_by_NID(name, nid, type_for(nid, text), (const uint8_t *)text, -1, -1, 0) == 1;
}

static int nid_of(const char *key) {
        for (size_t i = 0; i < ELEMENTS(attributes); i++)
                if (strcasecmp(attributes[i].key, key) == 0)
                        return attributes[i].nid;
        return NID_undef;
}

/* RFC 5280 appendix A.1: the upper bounds; each is small enough for all attributes but the country. */
static bool is_value_sound(int nid, const char *value) {
        size_t size = strlen(value);

        for (const char *p = value; *p; p++)
                if ((unsigned char)*p < ' ' || *p == 0x7f)
                        return false;
        if (nid == NID_countryName)
                return size == 2 && isupper((unsigned char)value[0]) && isupper((unsigned char)value[1]);
        return size >= 1 && size <= 64;
}

/* Takes "key=value" up to a comma; a backslash makes the next character plain (RFC 4514 §2.4). Spaces
 * around both are dropped. Returns what follows the comma, NULL on a mistake. */
static const char *take_part(const char *text, char *key, char *value, size_t size) {
        size_t used = 0;

        text += strspn(text, " ");
        while (*text && *text != '=' && used + 1 < size)
                key[used++] = *text++;
        while (used > 0 && key[used - 1] == ' ')
                used--;
        key[used] = 0;
        if (*text++ != '=')
                return NULL;
        text += strspn(text, " ");
        size_t solid = 0; /* up to here spaces are no padding */
        for (used = 0; *text && *text != ',' && used + 1 < size; text++) {
                if (*text == '\\' && !*++text)
                        return NULL;
                value[used++] = *text;
                if (*text != ' ' || text[-1] == '\\')
                        solid = used;
        }
        value[solid] = 0;
        return *text == 0 || *text == ',' ? text : NULL;
}

X509_NAME *x509_name_parse(const char *text) {
        _cleanup_(x509_namep) X509_NAME *name = X509_NAME_new();
        char key[CONFIG_TEXT_MAX], value[CONFIG_TEXT_MAX];
        X509_NAME *ret;

        if (!name)
                oom();
        do {
                int nid;

                text = take_part(text, key, value, sizeof value);
                nid = text ? nid_of(key) : NID_undef;
                if (nid == NID_undef || !is_value_sound(nid, value) || !x509_name_add(name, nid, value)) {
                        ERR_clear_error();
                        return NULL;
                }
        } while (*text++ == ',');
        ret = name;
        name = NULL;
        return ret;
}

void x509_subject_text(X509 *certificate, char *to, size_t to_size) {
        /* As RFC 4514 writes it, but in the order of the certificate; control characters escaped. */
        const unsigned long flags = (ASN1_STRFLGS_RFC2253 & ~(unsigned long)ASN1_STRFLGS_ESC_MSB) |
                                    XN_FLAG_SEP_COMMA_PLUS | XN_FLAG_FN_SN | XN_FLAG_DUMP_UNKNOWN_FIELDS;
        BIO *memory = BIO_new(BIO_s_mem());
        int size;

        if (!memory)
                oom();
        size = X509_NAME_print_ex(memory, X509_get_subject_name(certificate), 0, flags) >= 0
                       ? BIO_read(memory, to, (int)(to_size > INT32_MAX ? INT32_MAX : to_size) - 1)
                       : 0;
        to[size > 0 ? size : 0] = 0;
        BIO_free(memory);
        ERR_clear_error();
}
