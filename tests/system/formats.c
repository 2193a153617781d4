/* SPDX-License-Identifier: Apache-2.0 */

/* For test_formats.py: gatewayd's own writers and readers of what crosses its borders, one command a line
 * on standard input, one answer a line, bytes as hex. "refused <why>" where a reader refuses.
 *
 *   sign KEYFILE KID PAYLOAD      a COSE_Sign1
 *   verify KEYFILE MESSAGE        "good <algorithm> <payload>"; KEYFILE holds a public key
 *   claims PAYLOAD                "<nonces> <swname> <swversion> <measurements>" of an EAT
 *   check ITEM                    "good": one well-formed CBOR item
 *   grant FORMAT ID KID KEY       a PSK grant; iat 1790000000, exp a day later
 *   public KEYFILE                the private key's public half as COSE_Key
 *   problem CODE TITLE DETAIL     problem details
 *   receipts N                    N lines "<receipt> <evidence>", then "key <COSE_Key>"
 */

#include <stdlib.h>

#include <openssl/pem.h>

#include "gatewayd/cbor.h"
#include "gatewayd/evidence/evidence.h"
#include "gatewayd/keys/cose.h"
#include "gatewayd/keys/grant.h"

#define WORDS_MAX      5
#define LINE_MAX_BYTES (256 * 1024)

static void print_hex(struct bytes bytes) {
        for (size_t i = 0; i < bytes.size; i++)
                printf("%02x", bytes.data[i]);
}

static void answer(struct bytes bytes) {
        print_hex(bytes);
        putchar('\n');
}

static void refuse(const struct problem *problem) {
        printf("refused %u %s: %s\n", problem->code, problem->title, problem->detail);
}

/* "-" stands for no bytes. */
static struct bytes from_hex(char *word) {
        ssize_t n;

        if (strcmp(word, "-") == 0)
                return (struct bytes){};
        n = hex_decode(bytes_of(word), (uint8_t *)word, strlen(word));
        if (n < 0)
                abort();
        return BYTES(word, (size_t)n);
}

static EVP_PKEY *read_key(const char *path, bool is_public) {
        FILE *file = fopen(path, "re");
        EVP_PKEY *key;

        if (!file)
                abort();
        key = is_public ? PEM_read_PUBKEY(file, NULL, NULL, NULL) : PEM_read_PrivateKey(file, NULL, NULL, NULL);
        fclose(file);
        if (!key)
                abort();
        return key;
}

static void do_sign(char **words) {
        _cleanup_(buffer_free) struct buffer to = {};
        EVP_PKEY *key = read_key(words[1], false);

        if (cose_sign1_make(key, from_hex(words[2]), from_hex(words[3]), &to) < 0)
                abort();
        answer(buffer_bytes(&to));
        EVP_PKEY_free(key);
}

static void do_verify(char **words) {
        EVP_PKEY *key = read_key(words[1], true);
        struct problem problem = { 0 };
        struct cose_sign1 sign1;

        if (cose_sign1_parse(from_hex(words[2]), &sign1, &problem) < 0 || cose_sign1_verify(&sign1, key, &problem) < 0)
                refuse(&problem);
        else {
                printf("good %lld ", (long long)sign1.algorithm);
                answer(sign1.payload);
        }
        EVP_PKEY_free(key);
}

static void do_claims(char **words) {
        struct problem problem = { 0 };
        struct claims claims;

        if (eat_parse(from_hex(words[1]), &claims, &problem) < 0) {
                refuse(&problem);
                return;
        }
        for (size_t i = 0; i < claims.nonce_count; i++) {
                printf("%s", i > 0 ? "," : "");
                print_hex(claims.nonces[i]);
        }
        printf(" %.*s %.*s ", (int)claims.swname.size, (const char *)claims.swname.data, (int)claims.swversion.size,
               (const char *)claims.swversion.data);
        for (size_t i = 0; i < claims.measurement_count; i++) {
                printf("%s%.*s=", i > 0 ? "," : "", (int)claims.measurements[i].type.size,
                       (const char *)claims.measurements[i].type.data);
                print_hex(claims.measurements[i].digest);
        }
        putchar('\n');
}

static void do_check(char **words) {
        struct problem problem = { 0 };
        struct bytes input = from_hex(words[1]);
        cbor_item_t *item = NULL;

        if (cbor_read(input, &item, &problem) < 0)
                refuse(&problem);
        else
                puts("good");
        cbor_itemp(&item);
}

static void do_grant(char **words) {
        _cleanup_(buffer_free) struct buffer to = {};
        const struct grant grant = {
                .subject = bytes_of(words[2]),
                .kid = from_hex(words[3]),
                .key = from_hex(words[4]),
                .has_dates = true,
                .has_expiry = true,
                .issued = 1790000000,
                .expires = 1790086400,
        };

        grant_write(&grant, (enum content_format)atoi(words[1]), &to);
        answer(buffer_bytes(&to));
}

static void do_public(char **words) {
        _cleanup_(buffer_free) struct buffer to = {};
        EVP_PKEY *key = read_key(words[1], false);

        if (cose_key_public(key, TEXT("kid"), &to) < 0)
                abort();
        answer(buffer_bytes(&to));
        EVP_PKEY_free(key);
}

static void do_problem(char **words) {
        _cleanup_(buffer_free) struct buffer to = {};
        struct problem problem;

        problem_set(&problem, (uint8_t)atoi(words[1]), 1, words[2], "%s", words[3]);
        problem_to_cbor(&problem, &to);
        answer(buffer_bytes(&to));
}

static int print_record(void *userdata, const struct custody *custody) {
        (void)userdata;
        print_hex(custody->receipt);
        putchar(' ');
        answer(custody->evidence);
        return 0;
}

/* A chain as core makes it, on a store in memory: appraised or not, with a challenge or none, at every
 * quality of the clock. */
static void make_receipts(struct turn *turn, struct custodian *custodian, unsigned count) {
        for (unsigned i = 0; i < count; i++) {
                const struct appraisal appraisal = {
                        .is_appraised = i % 3 != 0,
                        .tier = i % 3 != 0 ? TIER_AFFIRMING : TIER_NONE,
                        .instance_identity = 2,
                        .executables = i % 2 ? 2 : 33,
                        .hardware = i % 5 == 0 ? -2 : 0,
                        .reason = "for a test",
                };
                struct challenge challenge = { .device = "sensor-1" };
                uint8_t evidence[64];
                uint64_t sequence;

                memset(challenge.nonce, (int)i, sizeof challenge.nonce);
                memset(evidence, (int)i, sizeof evidence);
                turn->now = (struct moment){ 1790000000 + i, 1000 + i, (enum clock_quality)(i % 3), i % 3 != 0 };
                if (custody_record(turn, custodian, i % 2 ? "sensor-1" : "sensor-2", i % 4 ? 263 : 273,
                                   i % 4 ? &challenge : NULL, BYTES(evidence, i % sizeof evidence), &appraisal,
                                   &sequence, NULL) < 0)
                        abort();
        }
}

static void do_receipts(char **words) {
        static const uint8_t sealing_key[32] = { 1 };
        const struct store_options options = { .in_memory = true, .key_encryption_key = BYTES(sealing_key, 32) };
        const struct config config = { .gateway_id = "gateway-1", .backlog_records = 100000, .backlog_bytes = 1 << 30 };
        _cleanup_(buffer_free) struct buffer to = {};
        struct turn turn = { .config = &config, .actor = "test" };
        struct custodian custodian;

        if (store_open(&options, &turn.store, NULL) < 0 || custodian_open(&turn, config.gateway_id, &custodian) < 0)
                abort();
        make_receipts(&turn, &custodian, (unsigned)atoi(words[1]));
        if (custody_waiting(turn.store, 0, SIZE_MAX, print_record, NULL) < 0 ||
            cose_key_public(custodian.key, BYTES(custodian.kid, sizeof custodian.kid), &to) < 0)
                abort();
        printf("key ");
        answer(buffer_bytes(&to));
        custodian_close(&custodian);
        turn_free(&turn);
        store_closep(&turn.store);
}

static const struct command {
        const char *name;
        size_t words;
        void (*run)(char **words);
} commands[] = {
        { "sign", 4, do_sign },       { "verify", 3, do_verify },     { "claims", 2, do_claims },
        { "check", 2, do_check },     { "grant", 5, do_grant },       { "public", 2, do_public },
        { "problem", 4, do_problem }, { "receipts", 2, do_receipts },
};

static void run(char *line) {
        char *words[WORDS_MAX] = { NULL }, *rest = line;
        size_t count = 0;

        for (char *word; count < WORDS_MAX && (word = strsep(&rest, " \n")) && *word; count++)
                words[count] = word;
        for (size_t i = 0; i < ELEMENTS(commands); i++)
                if (count == commands[i].words && strcmp(words[0], commands[i].name) == 0) {
                        commands[i].run(words);
                        fflush(stdout);
                        return;
                }
        abort();
}

int main(void) {
        static char line[LINE_MAX_BYTES];

        while (fgets(line, sizeof line, stdin))
                run(line);
        return 0;
}
