/* SPDX-License-Identifier: Apache-2.0 */

/* What a backup becomes when it is opened in the store's place: a store of its own, which continues where the backup
 * ended. What the lost one did afterwards is not known here, so nothing of it may be taken for ours: receipts get
 * another incarnation, CRLs numbers far beyond any that can have been published (RFC 5280 §5.2.3: they only grow),
 * and no DTLS session of then is asked in any more. One transaction: a power cut leaves the backup. */

#include "store/credentials.h"
#include "store/internal.h"

#include <errno.h>

#include <openssl/rand.h>

static int run_sql(struct store *store, const char *sql) {
        _cleanup_(query_end) struct query q = query_new(store, sql);
        int r = query_run(&q);

        return r < 0 ? r : 0;
}

/* A new CRL a second for twelve days is fewer than that. */
#define SQL_AHEAD "UPDATE authority SET crl_number = min(crl_number, 9223372036853727231) + 1048576, crl_is_stale = 1"

/* The recovery key of before, where there was one: the backup's data keys are wrapped to its recipient. */
static int return_recovery_key(struct store *store) {
        int r = run_sql(store, "UPDATE meta SET recovery_public = backup_recovery, backup_recovery = NULL"
                               " WHERE id = 1");

        if (r == 0)
                r = run_sql(store, "UPDATE data_key SET recovery = NULL");
        return r < 0 ? r : seal_each_key(store, recovery_cover);
}

static int take_own_name(struct store *store) {
        _cleanup_(query_end) struct query q = query_new(
                store, "UPDATE meta SET incarnation = ?, oldest_writer = backup_writer, backup_writer = NULL,"
                       " is_restored = 1, restored_wall = 0, restored_powered = 0, restored_quality = 0 WHERE id = 1");
        uint8_t incarnation[INCARNATION_BYTES];
        int r;

        if (RAND_bytes(incarnation, sizeof incarnation) != 1)
                return -EIO;
        query_put_blob(&q, BYTES(incarnation, sizeof incarnation));
        r = query_run(&q);
        return r < 0 ? r : 0;
}

int restore_take_over(struct store *store) {
        int r = return_recovery_key(store);

        if (r == 0)
                r = run_sql(store, SQL_AHEAD);
        if (r == 0)
                r = credential_forget_sessions(store);
        if (r == 0)
                r = take_own_name(store);
        return r;
}
