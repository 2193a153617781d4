/* SPDX-License-Identifier: Apache-2.0 */

/* gatewayctl sealing …: the offline recovery key, on its only way out of the gateway; and a new sealing key, which
 * lies beside the old one before the store is told of it, and takes its place before the store forgets the old. */

#include "gatewayd/operator/gatewayctl_sealing.h"

#include <errno.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "gatewayd/crash_point.h"
#include "gatewayd/operator/gatewayctl_client.h"
#include "gatewayd/sealing.h"

#define CREDENTIAL_PATH "/etc/credstore.encrypted/" SEALING_CREDENTIAL

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

/* ---- rotate ---- */

static int send_key(struct client *client, const char *method, const struct secret *key, bool has_look, bool only_look,
                    struct value *ret) {
        sd_bus_message *message = NULL;
        int r = client_message(client, method, &message);

        if (r < 0)
                return r;
        r = sd_bus_message_sensitive(message); /* its memory is wiped when it goes */
        if (r >= 0)
                r = sd_bus_message_append_array(message, 'y', key->data, key->size);
        if (r >= 0 && has_look)
                r = sd_bus_message_append(message, "b", (int)only_look);
        if (r < 0) {
                complain("the key cannot be sent: %s", strerror(-r));
                sd_bus_message_unref(message);
                return r;
        }
        return client_send(client, message, 1, ret);
}

enum known { UNKNOWN, IN_FORCE, PREPARED };

/* What the key is to the store; prepared then, unless `only_look`. -errno after saying so. */
static int ask_store(struct client *client, const struct secret *key, bool only_look) {
        struct value answer;
        int r = send_key(client, "PrepareSealingKey", key, true, only_look, &answer);

        if (r < 0)
                return r;
        r = UNKNOWN;
        if (answer.items[0].kind == VALUE_TEXT)
                r = strcmp(answer.items[0].text, "in force") == 0   ? IN_FORCE
                    : strcmp(answer.items[0].text, "prepared") == 0 ? PREPARED
                                                                    : UNKNOWN;
        value_free(&answer);
        return r;
}

static int say(struct client *client, bool is_changed, bool is_in_force, const char *text) {
        if (client->is_json)
                fprintf(client->screen.to, "{\n  \"changed\": %s,\n  \"in_force\": %s\n}\n",
                        is_changed ? "true" : "false", is_in_force ? "true" : "false");
        else
                fprintf(client->screen.to, "%s\n", text);
        return is_changed ? EXIT_DONE : EXIT_UNCHANGED;
}

/* A core that dies is started anew with the credentials that the service was started with: while that is the old one,
 * it must open the store. The service's own next start is the second step. */
static int finish(struct client *client, const struct sealing_place *place, const struct secret *key, bool is_new) {
        struct value answer;

        if (place->is_read_by_systemd)
                return say(client, is_new, false,
                           "the new key is in its place, and the only one from the next start of the service on\n"
                           "(systemctl restart gatewayd); until then the old one opens the store, too");
        if (send_key(client, "FinishSealingKey", key, false, false, &answer) < 0)
                return EXIT_FAILED;
        value_free(&answer);
        crash_point("sealing key: not told");
        return say(client, true, true,
                   is_new ? "the store has a new sealing key; the one before opens nothing any more"
                          : "the change that was cut off is finished: the one before opens nothing any more");
}

/* The key that lies in the place must be the store's: what is put in its place is what the next start finds. */
static int look_at_place(struct client *client, const struct sealing_place *place, struct secret *ret) {
        int r = sealing_place_read(place, place->path, ret);

        if (r == -ENOENT)
                complain("%s: there is nothing; --credential or --file says where the service finds its sealing key",
                         place->path);
        if (r < 0)
                return r;
        r = ask_store(client, ret, true);
        if (r != UNKNOWN)
                return r;
        complain("%s holds another key than the store is sealed with; --credential or --file says where the service "
                 "finds its sealing key",
                 place->path);
        return -EINVAL;
}

/* Which key is to be the next: the one that a run before this one has left, a given one, or a new one. */
static int choose(const struct sealing_place *place, const char *given, struct secret *ret) {
        const struct sealing_place file = { .is_credential = false };
        char path[PATH_MAX];
        int r = sealing_place_new_path(place, path);

        if (r < 0)
                return r;
        if (given) {
                r = sealing_place_read(&file, given, ret);
                if (r == -ENOENT)
                        complain("%s: %s", given, strerror(ENOENT));
                return r;
        }
        /* One that was cut off while it was written does not read, and was told to nobody. */
        if (sealing_place_read(place, path, ret) == 0)
                return 0;
        ret->size = SEALING_KEY_BYTES;
        if (RAND_priv_bytes(ret->data, SEALING_KEY_BYTES) == 1)
                return 0;
        complain("no random bytes can be had");
        return -EIO;
}

static int rotate(struct client *client, const struct sealing_place *place, const char *given) {
        _cleanup_(secret_wipe) struct secret now = { 0 }, next = { 0 };
        int r = look_at_place(client, place, &now);

        if (r < 0)
                return EXIT_FAILED;
        if (r == PREPARED)
                return finish(client, place, &now, false);
        if (choose(place, given, &next) < 0)
                return EXIT_FAILED;
        if (secret_equal(&now, &next)) {
                sealing_place_drop_new(place);
                return say(client, false, true, "this is the store's sealing key already");
        }
        if (sealing_place_write_new(place, &next) < 0)
                return EXIT_FAILED;
        crash_point("sealing key: not prepared");
        if (ask_store(client, &next, false) != PREPARED || sealing_place_put_new(place) < 0)
                return EXIT_FAILED;
        crash_point("sealing key: not finished");
        return finish(client, place, &next, true);
}

/* Where the running service has its key from, unless the operator says. */
static int find_place(struct client *client, const char *file, const char *credential, struct sealing_place *place) {
        struct value answer;
        const char *path;
        bool is_file;

        if (client_call(client, "SealingPlace", 2, &answer, "") < 0)
                return EXIT_FAILED;
        is_file = answer.items[0].kind == VALUE_BOOL && answer.items[0].boolean;
        path = answer.items[1].kind == VALUE_TEXT ? answer.items[1].text : "";
        place->is_read_by_systemd = !is_file;
        place->is_credential = credential || (!file && !is_file);
        if (credential || file)
                path = credential ? credential : file;
        else if (!is_file)
                path = CREDENTIAL_PATH;
        snprintf(place->path, sizeof place->path, "%s", path);
        value_free(&answer);
        return EXIT_DONE;
}

int command_sealing_rotate(struct client *client, int count, char **arguments) {
        const char *given = NULL, *credential = NULL, *file = NULL;
        struct sealing_place place = { 0 };
        const struct command_option options[] = { { "--key", &given, NULL },
                                                  { "--credential", &credential, NULL },
                                                  { "--file", &file, NULL },
                                                  { "--with-key", &place.with_key, NULL } };
        int r = take_arguments(count, arguments, options, ELEMENTS(options), NULL, 0, 0, "");

        if (r != 0)
                return r;
        if (credential && file)
                return usage_error("the sealing key is in a credential or in a file, not in both");
        if (place.with_key && file)
                return usage_error("--with-key goes with a credential");
        r = find_place(client, file, credential, &place);
        if (r != EXIT_DONE)
                return r;
        return rotate(client, &place, given);
}
