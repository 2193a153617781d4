/* SPDX-License-Identifier: Apache-2.0 */

/* Configuration texts: whatever stands in a file, it is refused with at least one line of reason, or
 * taken and then keeps the promises that the rest of the daemon builds on. */

#include <assert.h>
#include <stdlib.h>

#include "config/load_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* libconfig's scanner keeps the text of a string that never ends; what leaks elsewhere is ours. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
        return "leak:libconfig.so";
}

static void check_profile(const struct config *config, const struct profile *p) {
        assert(config_profile(config, p->name) == p);
        assert(p->rotate_every_sec >= 1 &&
               p->rotate_every_sec <= config->class_limit_sec[p->sensitivity][p->criticality]);
        assert(p->grace_sec >= 0 && p->rotate_every_sec + p->grace_sec < p->max_age_sec);
        assert(p->jitter >= 0 && p->jitter <= 0.5);
        assert(p->psk_bytes >= 16 && p->psk_bytes <= 64);
        assert(p->psk_format != PSK_TEXT || p->psk_bytes % 4 == 0);
        assert(p->block_size >= 16 && p->block_size <= 1024 && (p->block_size & (p->block_size - 1)) == 0);
        assert(p->max_session_sec >= 1 && p->challenge_sec >= 1);
        assert((p->attestation == ATTESTATION_NONE) == (p->attest_every_sec == 0));
        assert(p->attestation != ATTESTATION_NONE ||
               (p->on_factory_key != FACTORY_ATTEST && p->on_conflict != CONFLICT_ATTEST));
        for (size_t i = 0; i < p->reference_count; i++) {
                const struct reference_value *reference = &p->references[i];

                assert(reference->digest_size <= sizeof reference->digest);
                assert(reference->swname[0] || reference->swversion[0] || reference->digest_size > 0);
                assert(memchr(reference->swname, 0, sizeof reference->swname));
        }
}

static void check_span(const uint8_t *data, size_t size) {
        char text[64], written[64];
        int64_t seconds, again;

        if (bytes_to_text(BYTES(data, size), text, sizeof text) < 0 || timespan_parse(text, &seconds) < 0)
                return;
        assert(seconds >= 0);
        timespan_format(seconds, written);
        assert(timespan_parse(written, &again) == 0 && again == seconds);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        struct config_problems problems = { 0 };
        struct config *config = NULL;
        int r;

        check_span(data, size);
        r = config_load_text("fuzz", BYTES(data, size), &config, &problems);
        assert((r == 0) == (config != NULL));
        assert(r == 0 || problems.count > 0);
        for (size_t i = 0; i < problems.count; i++)
                assert(strncmp(problems.lines[i], "fuzz:", 5) == 0);
        if (r == 0) {
                assert(config->profile_count > 0 && config->listen_count == 1 && config->gateway_id[0]);
                assert(config->store_path[0] == '/' && config->control_path[0] == '/');
                assert(config->north.verifier == VERIFIER_NONE || strncmp(config->north.url, "https://", 8) == 0);
                for (size_t i = 0; i < config->profile_count; i++)
                        check_profile(config, &config->profiles[i]);
        }
        config_free(config);
        config_problems_free(&problems);
        return 0;
}
