/* SPDX-License-Identifier: Apache-2.0 */

/* The reply of a collector: whatever it holds, all of its results are right or none counts. */

#include <stdlib.h>

#include "gatewayd/north/batch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        static struct batch_result results[BATCH_RESULTS_MAX];
        struct problem problem = { 0 };
        int n = batch_read_results(BYTES(data, size), results, &problem);

        if (n < 0 && problem.detail[0] == 0)
                abort();
        for (int i = 0; i < n; i++)
                if (results[i].sequence == 0 ||
                    (results[i].tier != 0 && results[i].tier != 2 && results[i].tier != 32 && results[i].tier != 96))
                        abort();
        return 0;
}
