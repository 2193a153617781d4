/* SPDX-License-Identifier: Apache-2.0 */

/* POST /cred: who gets which key, and what becomes of it. */

#include "tests/unit/support.h"

#include "tests/unit/devices_fixture.h"

static void a_factory_key_gets_an_operational_key_that_its_first_handshake_activates(void **state) {
        struct fixture *f = *state;
        struct identity identity;
        char kid[DEVICE_ID_MAX + 1];

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        assert_int_equal(fixture_connect(f, "sensor-1", &identity), 0);
        assert_int_equal(fixture_due(f, &identity), DUE_ROTATE);
        assert_int_equal(fixture_cred(f, &identity, kid, NULL), CODE_CHANGED);
        assert_int_equal(fixture_state(f, kid), KEY_PRE_ACTIVE);
        assert_int_equal(fixture_connect(f, kid, &identity), 0);
        assert_int_equal(fixture_state(f, kid), KEY_ACTIVE);
        assert_int_equal(fixture_state(f, "sensor-1"), KEY_RETIRING);
        assert_int_equal(fixture_device(f, "sensor-1").standing, STANDING_OPERATIONAL);
        assert_int_equal(fixture_due(f, &identity), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(a_factory_key_gets_an_operational_key_that_its_first_handshake_activates,
                                                fixture_setup, fixture_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
