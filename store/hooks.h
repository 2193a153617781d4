/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Where a test may reach into the store's flush and checkpoint. Production passes none. */

enum checkpoint_pass { CHECKPOINT_PASSIVE, CHECKPOINT_HELD };

struct store_hooks {
        /* Instead of fdatasync(2) on the WAL: returns 0, or -1 with errno. NULL: the real one. */
        int (*flush)(void *userdata, int fd);
        /* On the barrier thread, before a pass begins and after it has ended. May be NULL. */
        void (*pass_begins)(void *userdata, enum checkpoint_pass pass);
        void (*pass_ends)(void *userdata, enum checkpoint_pass pass);
        /* Before each change of a row, each commit, each flush and each checkpoint's pass: where a test may end the
         * process. `what` is the statement, or "commit", "flush", "checkpoint". On the barrier thread too. May be
         * NULL. */
        void (*operation)(void *userdata, const char *what);
        void *userdata;
};
