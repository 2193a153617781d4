/* SPDX-License-Identifier: Apache-2.0 */

/* A fleet over simulated years, half of it with PSKs and half with certificates of a CA that rolls over, under
 * everything that goes wrong in the field: lost packets at every step, rebooting devices, a gateway that crashes on
 * either side of every commit, loses its power for days and its calendar for years, and an uplink that never comes;
 * with operators who rotate, pause and resume, and profiles with calendars and windows.
 * No device is ever locked out, no key lives past its policy, each step is in the audit table, no thief keeps a key,
 * nothing of a revoked device gets in.
 *
 * FLEET_SEED (a number), FLEET_SEEDS (how many in a row), FLEET_DEVICES, FLEET_YEARS say otherwise than by
 * default; with TORTURE=1 there are more seeds, and one run on a store in a file that every crash reopens. */

#include "tests/unit/support.h"

#include "tests/unit/fleet_world.h"

#include <unistd.h>

#include "gatewayd/keys/authority.h"

static uint64_t setting(const char *name, uint64_t otherwise) {
        const char *text = getenv(name);

        return text && text[0] ? strtoull(text, NULL, 10) : otherwise;
}

static void live(uint64_t seed, size_t devices, uint64_t years, const char *path) {
        struct world *w = world_new(seed, devices, path);
        uint64_t grants = 0, proofs = 0, fallbacks = 0;

        world_run(w, FIXTURE_START + (int64_t)years * 365 * FIXTURE_DAY);
        world_settle(w);
        for (size_t i = 0; i < w->device_count; i++) {
                grants += w->devices[i].model.grants;
                proofs += w->devices[i].model.proofs;
                fallbacks += w->devices[i].model.fallbacks;
        }
        print_message("seed %llu: %zu devices, %llu years, %llu times awake, %llu handshakes, %llu keys granted, "
                      "%llu proven, %llu fallbacks, %llu conflicts, %u crashes, %u boots, %u jumps, %llu knocks of "
                      "thieves refused, %llu renewals with expired certificates, %u orders, CA generation %lld\n",
                      (unsigned long long)seed, devices, (unsigned long long)years, (unsigned long long)w->wakes,
                      (unsigned long long)w->handshakes, (unsigned long long)grants, (unsigned long long)proofs,
                      (unsigned long long)fallbacks, (unsigned long long)w->conflicts, w->crashes, w->boots, w->jumps,
                      (unsigned long long)w->refused_thieves, (unsigned long long)w->expired_renewals, w->orders,
                      (long long)authority_newest(&w->f->turn));
        /* Each of them rotates every 30 days at the latest: fewer would mean that nothing was tested. */
        assert_true(proofs >= devices * years * 9);
        assert_true(devices < 40 || w->expired_renewals > 0);
        world_free(w);
}

static void five_years_of_faults_lock_no_device_out_and_no_key_outlives_its_policy(void **state) {
        uint64_t seed = setting("FLEET_SEED", 1);
        uint64_t seeds = setting("FLEET_SEEDS", setting("TORTURE", 0) ? 10 : 1);

        (void)state;
        for (uint64_t i = 0; i < seeds; i++)
                live(seed + i, setting("FLEET_DEVICES", setting("TORTURE", 0) ? 200 : 56), setting("FLEET_YEARS", 5),
                     NULL);
}

static void the_same_holds_on_a_store_in_a_file_that_every_crash_reopens(void **state) {
        char folder[] = "/tmp/gatewayd-fleet-XXXXXX", path[64], command[96];
        bool is_long = setting("TORTURE", 0) != 0;

        (void)state;
        assert_non_null(mkdtemp(folder));
        snprintf(path, sizeof path, "%s/store.db", folder);
        live(setting("FLEET_SEED", 1), is_long ? setting("FLEET_DEVICES", 200) : 8, is_long ? 2 : 1, path);
        snprintf(command, sizeof command, "rm -r %s", folder);
        assert_int_equal(system(command), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(five_years_of_faults_lock_no_device_out_and_no_key_outlives_its_policy),
                cmocka_unit_test(the_same_holds_on_a_store_in_a_file_that_every_crash_reopens),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
