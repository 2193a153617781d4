/* SPDX-License-Identifier: Apache-2.0 */

/* gatewayctl sealing recovery: the offline recovery key, on its only way out of the gateway. */

#include <errno.h>

#include <openssl/crypto.h>

#include "gatewayd/operator/gatewayctl_client.h"

static const char explanation[] =
        "This is the recovery key of the gateway's store. It is shown this once and kept nowhere; one made\n"
        "before no longer opens this store. Keep it away from the gateway: whoever has it and a copy of the store\n"
        "has every device's key. It opens the store when the sealing key is lost: gatewayd(8), CREDENTIALS.\n";

/* The key alone goes to standard output, so that it can be redirected into a file or a safe's program. */
int command_sealing_recovery(struct client *client, int count, char **arguments) {
        struct value answer;
        char *key;
        int r = take_arguments(count, arguments, NULL, 0, NULL, 0, 0, "");

        if (r != 0)
                return r;
        if (client_call(client, "MakeRecoveryKey", 1, &answer, "") < 0)
                return EXIT_FAILED;
        if (answer.items[0].kind != VALUE_TEXT) {
                value_free(&answer);
                complain("the answer cannot be read: %s", strerror(EBADMSG));
                return EXIT_FAILED;
        }
        key = answer.items[0].text;
        if (client->is_json)
                fprintf(client->screen.to, "{\n  \"recovery_key\": \"%s\"\n}\n", key);
        else
                fprintf(client->screen.to, "%s\n", key);
        OPENSSL_cleanse(key, strlen(key));
        value_free(&answer);
        /* A key that reached nobody (a full disk) needs no words about its keeping; main() says so. */
        if (fflush(client->screen.to) == 0 && !client->is_json)
                fputs(explanation, stderr);
        return EXIT_DONE;
}
