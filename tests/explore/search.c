/* SPDX-License-Identifier: Apache-2.0 */

/* Breadth first through all that can happen, each state once, and what must hold in every one of them:
 *
 *   1. Some key is always shared: the gateway takes one that is in the device's flash.
 *   2. A compromised key never begets a successor: once a compromise is declared, no key that the thief knows, and
 *      none that was granted over a compromised one without evidence, opens anything.
 *   3. At most one proven key is the newest; at most four are unproven, none of them older than it.
 *   4. A predecessor ends when its successor is confirmed and the grace is over, not before.
 *   5. Undisturbed from there on, the device settles.
 *
 * Where 1 and 5 cannot hold, and PROTOCOL.md says so: a thief was the first to show a key and the device's own ended
 * before it was seen again; the gateway was restored from a backup that is two grants old; a device that cannot
 * attest is compromised (a technician visits it: then 5 holds again). */

#include "tests/explore/life.h"

#define NODES_MAX (UINT32_C(1) << 21)
#define NONE      UINT32_MAX

struct node {
        struct packed *life;
        uint32_t parent;
        uint32_t course; /* the state that follows undisturbed; NONE */
        struct happening happening;
        bool is_home;     /* settled, given up, or known to lead there */
        bool is_given_up; /* excused: nothing more is looked for behind it */
};

struct graph {
        struct explorer x;
        struct node *nodes;
        uint32_t count;
        uint64_t steps;
        struct place {
                uint8_t hash[STATE_HASH_BYTES];
                uint32_t node; /* + 1; 0: free */
        } * places;
        uint32_t place_count;
};

/* ---- what must hold ---- */

static bool is_operational_row(const struct credential *c) {
        return credential_is_operational(c->kind);
}

/* Rule 1 does not hold, as is known. */
static bool is_excused(const struct life *life) {
        return life->is_betrayed || (life->is_restored && life->grants_since_backup >= 2) ||
               life->rows.device.standing == STANDING_NEEDS_VISIT;
}

/* Nor does 5: a technician would have to come, which nothing tells him of. */
static bool is_given_up(const struct explorer *x, const struct life *life) {
        return is_excused(life) && !life_shares_key(x, life) && life->rows.device.standing != STANDING_NEEDS_VISIT;
}

static bool is_thiefs(const struct life *life, const struct credential *c) {
        for (size_t i = 0; i < life->thief_count; i++)
                if (strcmp(life->thief[i].identity, c->identity) == 0)
                        return true;
        return false;
}

static bool is_fruit_of_compromise(const struct explorer *x, const struct life *life, const struct credential *c) {
        const struct credential *over = rows_find(&life->rows, c->predecessor, NULL);
        bool is_open = c->state == KEY_PRE_ACTIVE || c->state == KEY_ACTIVE || c->state == KEY_RETIRING;
        bool can_attest = x->gateway->profiles[x->profile].attestation != ATTESTATION_NONE;

        if (!is_operational_row(c) || !is_open)
                return false;
        return (life->is_declared && is_thiefs(life, c)) || (over && over->state == KEY_COMPROMISED && !can_attest);
}

static bool has_outlived_proof(const struct life *life, const struct credential *c) {
        for (size_t i = 0; i < life->rows.count; i++) {
                const struct credential *tip = &life->rows.list[i];

                if (c->state == KEY_PRE_ACTIVE && tip->state == KEY_ACTIVE && is_operational_row(tip) &&
                    c->generation < tip->generation)
                        return true;
        }
        return false;
}

static const char *find_broken(const struct explorer *x, const struct life *life) {
        unsigned active = 0, unproven = 0;

        for (size_t i = 0; i < life->rows.count; i++) {
                const struct credential *c = &life->rows.list[i];

                active += is_operational_row(c) && c->state == KEY_ACTIVE;
                unproven += c->state == KEY_PRE_ACTIVE;
                if (has_outlived_proof(life, c))
                        return "3: an unproven key has outlived the proof of one beside it";
                if (is_fruit_of_compromise(x, life, c))
                        return "2: a compromised key has begotten a successor";
        }
        if (active > 1)
                return "3: two proven keys are the newest";
        if (unproven > 4)
                return "3: more than four keys are unproven";
        return life_shares_key(x, life) || is_excused(life) ? NULL : "1: no key is shared";
}

static bool has_confirmed_other(const struct rows *rows, const struct credential *than) {
        for (size_t i = 0; i < rows->count; i++)
                if (is_operational_row(&rows->list[i]) && moment_is_set(&rows->list[i].confirmed) &&
                    rows->list[i].generation > than->generation)
                        return true;
        return false;
}

/* Rule 4, from one state to the next. */
static const char *find_broken_end(const struct explorer *x, const struct life *before, const struct life *after) {
        const struct profile *profile = &x->gateway->profiles[x->profile];

        if (profile->attestation != ATTESTATION_NONE || before->is_restored != after->is_restored)
                return NULL; /* evidence may end keys at once; so does another store */
        for (size_t i = 0; i < before->rows.count; i++) {
                const struct credential *c = &before->rows.list[i];
                const struct credential *now = rows_find(&after->rows, c->identity, NULL);

                if (c->state != KEY_RETIRING || (now && now->state != KEY_DEACTIVATED))
                        continue;
                if (after->rows.device.is_compromised || after->rows.device.standing == STANDING_NEEDS_VISIT)
                        continue;
                if (!has_confirmed_other(&after->rows, c) && !has_confirmed_other(&before->rows, c))
                        return "4: a predecessor ended before its successor was confirmed";
                if (moment_age(&after->now, &c->superseded) < profile->grace_sec)
                        return "4: a predecessor ended within the grace";
        }
        return NULL;
}

/* ---- traces ---- */

static void print_state(struct graph *graph, uint32_t node) {
        static struct life life;

        life_unpack(graph->nodes[node].life, &life);
        life_print(&life);
}

static void print_way(struct graph *graph, uint32_t node) {
        uint32_t way[512];
        size_t n = 0;

        for (; graph->nodes[node].parent != NONE && n < ELEMENTS(way); node = graph->nodes[node].parent)
                way[n++] = node;
        print_state(graph, node);
        for (size_t i = n; i-- > 0;) {
                print_message("%5zu. ", n - i);
                happening_print(graph->nodes[way[i]].happening);
                print_state(graph, way[i]);
        }
}

static void stop(struct graph *graph, const struct search *search, uint32_t node, const char *broken) {
        print_message("%s: rule %s:\n", search->name, broken);
        print_way(graph, node);
        fail();
}

/* ---- the graph ---- */

static struct place *find_place(struct graph *graph, const uint8_t hash[STATE_HASH_BYTES]) {
        uint64_t at;

        memcpy(&at, hash, sizeof at);
        for (at %= graph->place_count;; at = (at + 1) % graph->place_count)
                if (graph->places[at].node == 0 || memcmp(graph->places[at].hash, hash, STATE_HASH_BYTES) == 0)
                        return &graph->places[at];
}

static void grow_places(struct graph *graph) {
        struct place *old = graph->places;
        uint32_t count = graph->place_count;

        graph->place_count = count * 2;
        graph->places = xcalloc(graph->place_count, sizeof *graph->places);
        for (uint32_t i = 0; i < count; i++)
                if (old[i].node != 0)
                        *find_place(graph, old[i].hash) = old[i];
        free(old);
}

static void grow_nodes(struct graph *graph) {
        size_t capacity = graph->count ? 2 * (size_t)graph->count : 1;

        graph->nodes = reallocarray(graph->nodes, capacity, sizeof *graph->nodes);
        assert_non_null(graph->nodes);
}

/* The node of the life at hand; a new one where it was never met. */
static uint32_t place_life(struct graph *graph, uint32_t parent, struct happening happening, bool *ret_is_new) {
        uint8_t hash[STATE_HASH_BYTES];
        struct place *place;
        struct node *node;

        life_hash(&graph->x.life, hash);
        place = find_place(graph, hash);
        *ret_is_new = place->node == 0;
        if (place->node != 0)
                return place->node - 1;
        assert_true(graph->count < NODES_MAX);
        if (graph->count == 0 || (graph->count & (graph->count - 1)) == 0)
                grow_nodes(graph);
        node = &graph->nodes[graph->count];
        *node = (struct node){ life_pack(&graph->x.life), parent, NONE, happening, false, false };
        node->is_given_up = is_given_up(&graph->x, &graph->x.life);
        node->is_home = node->is_given_up || life_is_settled(&graph->x.life);
        memcpy(place->hash, hash, sizeof hash);
        place->node = ++graph->count;
        if (graph->count > graph->place_count / 2)
                grow_places(graph);
        return graph->count - 1;
}

static void go_on_from(struct graph *graph, const struct search *search, uint32_t from) {
        static struct life before;
        struct happening list[HAPPENINGS_MAX];
        bool is_course, is_new;
        size_t n;

        life_unpack(graph->nodes[from].life, &graph->x.life);
        gateway_load(&graph->x);
        n = happenings(&graph->x, list, &is_course);
        before = graph->x.life;
        for (size_t i = 0; i < n; i++) {
                const char *broken;
                uint32_t to;

                graph->x.life = before;
                happen(&graph->x, list[i]);
                gateway_undo(&graph->x);
                graph->steps++;
                to = place_life(graph, from, list[i], &is_new);
                if (is_course && i == 0)
                        graph->nodes[from].course = to;
                broken = find_broken_end(&graph->x, &before, &graph->x.life);
                if (!broken && is_new)
                        broken = find_broken(&graph->x, &graph->x.life);
                if (broken)
                        stop(graph, search, to, broken);
        }
}

/* Rule 5: follows each state's undisturbed course to one that is known to be home. */
static void check_courses(struct graph *graph, const struct search *search) {
        for (uint32_t start = 0; start < graph->count; start++) {
                uint32_t at = start;
                uint32_t left = graph->count;

                while (!graph->nodes[at].is_home && graph->nodes[at].course != NONE && left-- > 0)
                        at = graph->nodes[at].course;
                if (!graph->nodes[at].is_home)
                        stop(graph, search, start, "5: undisturbed from here on, the device never settles");
                for (at = start; !graph->nodes[at].is_home; at = graph->nodes[at].course)
                        graph->nodes[at].is_home = true;
        }
}

/* Where the search begins: fresh from the factory, or provisioned and with nothing left to do. */
static void begin(struct explorer *x, const struct search *search) {
        struct happening list[HAPPENINGS_MAX];
        bool is_course = true;

        gateway_begin(x);
        device_begin(x);
        while (search->is_provisioned && !life_is_settled(&x->life)) {
                assert_true(happenings(x, list, &is_course) > 0 && is_course);
                happen(x, list[0]);
        }
        x->life.budget = search->budget;
        x->life.attempts = 0;
}

void search_all(const struct search *search) {
        struct graph *graph = xcalloc(1, sizeof *graph);
        bool is_new;

        graph->place_count = 1 << 16;
        graph->places = xcalloc(graph->place_count, sizeof *graph->places);
        graph->x.gateway = fixture_new();
        graph->x.profile = search->profile;
        begin(&graph->x, search);
        (void)place_life(graph, NONE, (struct happening){ 0 }, &is_new);
        for (uint32_t i = 0; i < graph->count; i++)
                if (!graph->nodes[i].is_given_up)
                        go_on_from(graph, search, i);
        check_courses(graph, search);
        print_message("%-28s %8u states, %9llu steps\n", search->name, graph->count, (unsigned long long)graph->steps);

        for (uint32_t i = 0; i < graph->count; i++)
                free(graph->nodes[i].life);
        free(graph->nodes);
        free(graph->places);
        fixture_free(graph->x.gateway);
        free(graph);
}
