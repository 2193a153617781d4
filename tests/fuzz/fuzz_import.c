/* SPDX-License-Identifier: Apache-2.0 */

/* Import files: the first byte says CSV or JSON. Whatever comes, either rows that the registry would take
 * as they stand, or problems and no row. */

#include <assert.h>
#include <errno.h>

#include "gatewayd/devices/devices.h"
#include "gatewayd/devices/registry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        struct config_problems problems = { 0 };
        struct import import;
        int r;

        if (size == 0)
                return 0;
        r = import_parse(BYTES(data + 1, size - 1), data[0] == 'j', &import, &problems);
        assert(r == 0 || r == -EINVAL);
        assert((r == 0) == (problems.count == 0));
        assert(r == 0 || (import.rows == NULL && import.count == 0));
        for (size_t i = 0; i < import.count; i++) {
                const struct registration *row = &import.rows[i];

                assert(registry_check_id(row->id, NULL) == 0);
                assert(row->profile[0] != '\0');
                assert(row->factory_psk.size == 0 ||
                       (row->factory_psk.size >= 16 && row->factory_psk.size <= SECRET_MAX));
                assert(row->factory_psk.size == 0 || !row->has_idevid_fingerprint);
                assert(row->attestation_key_size <= ATTESTATION_KEY_MAX);
                assert(row->attestation_key_size == 0 ||
                       registry_check_attestation_key(BYTES(row->attestation_key, row->attestation_key_size), NULL) ==
                               0);
        }
        for (size_t i = 0; i < problems.count; i++)
                for (const char *p = problems.lines[i]; *p != '\0'; p++)
                        assert((unsigned char)*p >= ' ' && *p != 0x7f);
        import_free(&import);
        config_problems_free(&problems);
        return 0;
}
