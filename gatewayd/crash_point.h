/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Places where a test ends the process, to see what the next one makes of it. Only the test-clock build has
 * them: GATEWAYD_TEST_CRASH names a mapped file of two int64: how many points were passed, and before which one
 * the process kills itself (0: none). With GATEWAYD_TEST_CRASH_TELL each is named on standard error. */

#ifdef GATEWAYD_TESTCLOCK
void crash_point(const char *what);
#else
static inline void crash_point(const char *what) {
        (void)what;
}
#endif
