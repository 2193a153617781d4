/* SPDX-License-Identifier: Apache-2.0 */

/* CBOR: strict reading and deterministic writing on libcbor.
 *
 * libcbor allocates what a length claims, keeps the same key twice and reads text of any encoding.
 * So every input is first walked here, over the bytes themselves and with no memory but the list of
 * a map's keys; only what this walk accepts is given to cbor_load(). */

#include "gatewayd/cbor.h"

#include <errno.h>
#include <stdlib.h>

/* ---- the walk ---- */

enum major {
        MAJOR_UINT,
        MAJOR_NEGATIVE,
        MAJOR_BYTES,
        MAJOR_TEXT,
        MAJOR_ARRAY,
        MAJOR_MAP,
        MAJOR_TAG,
        MAJOR_SIMPLE,
};

struct head {
        enum major major;
        uint8_t info;      /* the lower five bits of the first byte */
        uint64_t argument; /* its meaning depends on the major type */
        bool is_indefinite;
};

/* A map key in a form that is equal for equal keys, however they were encoded. */
struct key {
        enum major major;
        uint64_t number;     /* integers: the argument */
        struct bytes string; /* byte strings and texts */
};

/* An item that still waits for items within it. */
struct frame {
        enum major major;
        bool is_indefinite;
        uint64_t left;    /* items to come, in a map keys and values; definite lengths only */
        bool wants_value; /* in a map: the next item is a value */
        size_t first_key; /* in a map: where its keys begin in walk.keys */
};

struct walk {
        struct bytes input;
        size_t at;
        struct frame frames[CBOR_DEPTH_MAX];
        size_t depth;
        struct key *keys; /* of all open maps */
        size_t key_count, key_capacity;
        const char *wrong; /* what is wrong at `at`, for a person */
};

static int refuse(struct walk *walk, const char *wrong) {
        walk->wrong = wrong;
        return -EBADMSG;
}

static size_t walk_left(const struct walk *walk) {
        return walk->input.size - walk->at;
}

/* RFC 8949 §3. Simple values other than false, true, null and undefined mean nothing to anybody
 * here and are refused, as libcbor does. */
static int read_head(struct walk *walk, struct head *ret) {
        size_t count;
        uint8_t first;

        if (walk_left(walk) < 1)
                return refuse(walk, "the input ends inside an item");
        first = walk->input.data[walk->at];
        *ret = (struct head){ .major = first >> 5, .info = first & 31, .argument = first & 31 };

        if (ret->info == 31) {
                if (ret->major == MAJOR_UINT || ret->major == MAJOR_NEGATIVE || ret->major == MAJOR_TAG)
                        return refuse(walk, "an integer or a tag has no indefinite length");
                ret->is_indefinite = true;
                walk->at++;
                return 0;
        }
        if (ret->info >= 28)
                return refuse(walk, "reserved additional information");
        if (ret->major == MAJOR_SIMPLE && (ret->info < 20 || ret->info == 24))
                return refuse(walk, "an unassigned simple value");
        walk->at++;
        if (ret->info < 24)
                return 0;

        count = (size_t)1 << (ret->info - 24);
        if (walk_left(walk) < count)
                return refuse(walk, "the input ends inside an item");
        ret->argument = 0;
        for (size_t i = 0; i < count; i++)
                ret->argument = ret->argument << 8 | walk->input.data[walk->at++];
        return 0;
}

/* The length of the character at the start of `text`, or 0 where there is none: shortest form only,
 * no surrogates, nothing past U+10FFFF (RFC 3629 §4). */
static size_t utf8_character(struct bytes text) {
        const uint8_t *p = text.data;
        size_t size = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;

        if (size == 0 || size > text.size)
                return 0;
        for (size_t i = 1; i < size; i++)
                if ((p[i] & 0xc0) != 0x80)
                        return 0;
        if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
            (p[0] == 0xf4 && p[1] > 0x8f))
                return 0;
        return size;
}

static bool is_utf8(struct bytes text) {
        for (size_t size; text.size > 0; text.data += size, text.size -= size) {
                size = utf8_character(text);
                if (size == 0)
                        return false;
        }
        return true;
}

static int compare_keys(const void *one, const void *other) {
        const struct key *a = one, *b = other;

        if (a->major != b->major)
                return a->major < b->major ? -1 : 1;
        if (a->number != b->number)
                return a->number < b->number ? -1 : 1;
        if (a->string.size != b->string.size)
                return a->string.size < b->string.size ? -1 : 1;
        return a->string.size > 0 ? memcmp(a->string.data, b->string.data, a->string.size) : 0;
}

static void remember_key(struct walk *walk, const struct key *key) {
        if (walk->key_count == walk->key_capacity) {
                walk->key_capacity = walk->key_capacity ? 2 * walk->key_capacity : 32;
                walk->keys = realloc(walk->keys, walk->key_capacity * sizeof *walk->keys);
                if (!walk->keys)
                        oom();
        }
        walk->keys[walk->key_count++] = *key;
}

/* A map has ended: sorted, equal keys stand side by side, so a large map costs no square. */
static int check_keys(struct walk *walk, size_t first) {
        size_t count = walk->key_count - first;
        struct key *keys;

        walk->key_count = first;
        if (count < 2)
                return 0;
        keys = walk->keys + first;
        qsort(keys, count, sizeof *keys, compare_keys);
        for (size_t i = 1; i < count; i++)
                if (compare_keys(&keys[i - 1], &keys[i]) == 0)
                        return refuse(walk, "a map holds the same key twice");
        return 0;
}

/* One item is complete: so may be those around it. */
static int item_done(struct walk *walk) {
        while (walk->depth > 0) {
                struct frame *top = &walk->frames[walk->depth - 1];

                if (top->major == MAJOR_MAP)
                        top->wants_value = !top->wants_value;
                if (top->is_indefinite || --top->left > 0)
                        return 0;
                walk->depth--;
                if (top->major == MAJOR_MAP && check_keys(walk, top->first_key) < 0)
                        return -EBADMSG;
        }
        return 0;
}

static int open_frame(struct walk *walk, const struct head *head) {
        uint64_t items = head->argument;

        if (head->major == MAJOR_TAG)
                items = 1;
        if (!head->is_indefinite && head->major != MAJOR_TAG) {
                if (items > walk_left(walk) / (head->major == MAJOR_MAP ? 2 : 1))
                        return refuse(walk, "a length claims more than there is");
                if (head->major == MAJOR_MAP)
                        items *= 2;
                if (items == 0)
                        return item_done(walk);
        }
        if (walk->depth == CBOR_DEPTH_MAX)
                return refuse(walk, "nested too deeply, 8 levels are allowed");
        walk->frames[walk->depth++] = (struct frame){
                .major = head->major,
                .is_indefinite = head->is_indefinite,
                .left = items,
                .first_key = walk->key_count,
        };
        return 0;
}

static int close_indefinite(struct walk *walk) {
        struct frame *top = walk->depth > 0 ? &walk->frames[walk->depth - 1] : NULL;

        if (!top || !top->is_indefinite || top->wants_value)
                return refuse(walk, "a break where none may stand");
        walk->depth--;
        if (top->major == MAJOR_MAP && check_keys(walk, top->first_key) < 0)
                return -EBADMSG;
        return item_done(walk);
}

static int take_string(struct walk *walk, const struct head *head, struct bytes *ret) {
        if (head->argument > walk_left(walk))
                return refuse(walk, "a length claims more than there is");
        *ret = BYTES(walk->input.data + walk->at, (size_t)head->argument);
        walk->at += ret->size;
        if (head->major == MAJOR_TEXT && !is_utf8(*ret))
                return refuse(walk, "a text string is not UTF-8");
        return 0;
}

static bool is_string(enum major major) {
        return major == MAJOR_BYTES || major == MAJOR_TEXT;
}

/* Keys other than integers and strings occur in no format that is read here. */
static int check_key(struct walk *walk, const struct head *head, struct bytes string) {
        bool is_integer = head->major == MAJOR_UINT || head->major == MAJOR_NEGATIVE;

        if (head->is_indefinite || (!is_integer && !is_string(head->major)))
                return refuse(walk, "a map key is neither an integer nor a definite string");
        remember_key(walk, &(struct key){ head->major, is_integer ? head->argument : 0, string });
        return 0;
}

static int walk_item(struct walk *walk) {
        struct frame *top = walk->depth > 0 ? &walk->frames[walk->depth - 1] : NULL;
        struct bytes string = {};
        struct head head;
        int r;

        r = read_head(walk, &head);
        if (r < 0)
                return r;
        if (head.major == MAJOR_SIMPLE && head.is_indefinite)
                return close_indefinite(walk);
        if (top && is_string(top->major) && (head.major != top->major || head.is_indefinite))
                return refuse(walk, "a chunk of another kind in an indefinite string");
        if (is_string(head.major) && !head.is_indefinite) {
                r = take_string(walk, &head, &string);
                if (r < 0)
                        return r;
        }
        if (top && top->major == MAJOR_MAP && !top->wants_value) {
                r = check_key(walk, &head, string);
                if (r < 0)
                        return r;
        }
        if (head.is_indefinite || head.major == MAJOR_ARRAY || head.major == MAJOR_MAP || head.major == MAJOR_TAG)
                return open_frame(walk, &head);
        return item_done(walk);
}

/* libcbor 0.8 takes the one-byte heads of tags 6 to 20, COSE_Sign1's 18 among them, for malformed: it is
 * given their two-byte form, which says the same. */
static void copy_for_libcbor(struct bytes piece, struct buffer *to) {
        uint8_t info = piece.data[0] & 31;

        if (piece.data[0] >> 5 == MAJOR_TAG && info < 24)
                buffer_append(to, BYTES(((uint8_t[]){ 0xd8, info }), 2));
        else
                buffer_append(to, piece);
}

/* Walks one item. `copy`, where not NULL, gets what cbor_load() is to read. */
static int walk_one(struct bytes input, size_t *ret_size, struct buffer *copy, struct problem *problem) {
        struct walk walk = { .input = input };
        size_t before;
        int r;

        do {
                before = walk.at;
                r = walk_item(&walk);
                if (r == 0 && copy)
                        copy_for_libcbor(BYTES(input.data + before, walk.at - before), copy);
        } while (r == 0 && walk.depth > 0);
        free(walk.keys);
        if (r < 0)
                return problem_set(problem, CODE_BAD_REQUEST, EBADMSG, "bad CBOR", "at byte %zu: %s", walk.at,
                                   walk.wrong);
        *ret_size = walk.at;
        return 0;
}

int cbor_measure(struct bytes input, size_t *ret_size, struct problem *problem) {
        return walk_one(input, ret_size, NULL, problem);
}

int cbor_check(struct bytes input, struct problem *problem) {
        size_t size = 0;
        int r;

        r = cbor_measure(input, &size, problem);
        if (r < 0)
                return r;
        if (size != input.size)
                return problem_set(problem, CODE_BAD_REQUEST, EBADMSG, "bad CBOR",
                                   "%zu bytes follow the item that ends at byte %zu", input.size - size, size);
        return 0;
}

/* ---- reading ---- */

int cbor_read_prefix(struct bytes input, cbor_item_t **ret, size_t *ret_size, struct problem *problem) {
        _cleanup_(buffer_free) struct buffer copy = {};
        struct cbor_load_result result;
        cbor_item_t *item;
        size_t size = 0;
        int r;

        r = walk_one(input, &size, &copy, problem);
        if (r < 0)
                return r;
        item = cbor_load(copy.data, copy.size, &result);
        if (!item && result.error.code == CBOR_ERR_MEMERROR)
                oom();
        if (!item)
                return problem_set(problem, CODE_BAD_REQUEST, EBADMSG, "bad CBOR",
                                   "near byte %zu: not an item that can be read", result.error.position);
        *ret = item;
        *ret_size = size;
        return 0;
}

int cbor_read(struct bytes input, cbor_item_t **ret, struct problem *problem) {
        size_t size;
        int r;

        r = cbor_check(input, problem);
        if (r < 0)
                return r;
        return cbor_read_prefix(input, ret, &size, problem);
}

void cbor_itemp(cbor_item_t **item) {
        if (*item)
                cbor_decref(item);
}

bool cbor_value_int(const cbor_item_t *item, int64_t *ret) {
        uint64_t value;

        if (!item || !cbor_is_int(item))
                return false;
        value = cbor_get_int(item);
        if (value > INT64_MAX)
                return false;
        *ret = cbor_isa_negint(item) ? -1 - (int64_t)value : (int64_t)value;
        return true;
}

bool cbor_value_bytes(const cbor_item_t *item, struct bytes *ret) {
        if (!item || !cbor_isa_bytestring(item) || !cbor_bytestring_is_definite(item))
                return false;
        *ret = BYTES(cbor_bytestring_handle(item), cbor_bytestring_length(item));
        return true;
}

bool cbor_value_text(const cbor_item_t *item, struct bytes *ret) {
        if (!item || !cbor_isa_string(item) || !cbor_string_is_definite(item))
                return false;
        *ret = BYTES(cbor_string_handle(item), cbor_string_length(item));
        return true;
}

cbor_item_t *cbor_map_int(const cbor_item_t *map, int64_t key) {
        int64_t value;

        if (!map || !cbor_isa_map(map))
                return NULL;
        for (size_t i = 0; i < cbor_map_size(map); i++)
                if (cbor_value_int(cbor_map_handle(map)[i].key, &value) && value == key)
                        return cbor_map_handle(map)[i].value;
        return NULL;
}

cbor_item_t *cbor_map_text(const cbor_item_t *map, const char *key) {
        struct bytes value;

        if (!map || !cbor_isa_map(map))
                return NULL;
        for (size_t i = 0; i < cbor_map_size(map); i++)
                if (cbor_value_text(cbor_map_handle(map)[i].key, &value) && bytes_equal(value, bytes_of(key)))
                        return cbor_map_handle(map)[i].value;
        return NULL;
}

/* ---- writing ---- */

#define HEAD_BYTES_MAX 9

void cbor_put_uint(struct buffer *to, uint64_t value) {
        uint8_t *at = buffer_reserve(to, HEAD_BYTES_MAX);

        to->size += cbor_encode_uint(value, at, HEAD_BYTES_MAX);
}

void cbor_put_int(struct buffer *to, int64_t value) {
        uint8_t *at;

        if (value >= 0) {
                cbor_put_uint(to, (uint64_t)value);
                return;
        }
        at = buffer_reserve(to, HEAD_BYTES_MAX);
        to->size += cbor_encode_negint((uint64_t)(-1 - value), at, HEAD_BYTES_MAX);
}

void cbor_put_bytes(struct buffer *to, struct bytes value) {
        uint8_t *at = buffer_reserve(to, HEAD_BYTES_MAX);

        to->size += cbor_encode_bytestring_start(value.size, at, HEAD_BYTES_MAX);
        buffer_append(to, value);
}

void cbor_put_text(struct buffer *to, struct bytes value) {
        uint8_t *at = buffer_reserve(to, HEAD_BYTES_MAX);

        to->size += cbor_encode_string_start(value.size, at, HEAD_BYTES_MAX);
        buffer_append(to, value);
}

void cbor_put_array(struct buffer *to, size_t count) {
        uint8_t *at = buffer_reserve(to, HEAD_BYTES_MAX);

        to->size += cbor_encode_array_start(count, at, HEAD_BYTES_MAX);
}

void cbor_put_map(struct buffer *to, size_t pairs) {
        uint8_t *at = buffer_reserve(to, HEAD_BYTES_MAX);

        to->size += cbor_encode_map_start(pairs, at, HEAD_BYTES_MAX);
}

void cbor_put_tag(struct buffer *to, uint64_t tag) {
        uint8_t *at = buffer_reserve(to, HEAD_BYTES_MAX);

        to->size += cbor_encode_tag(tag, at, HEAD_BYTES_MAX);
}

void cbor_put_bool(struct buffer *to, bool value) {
        uint8_t *at = buffer_reserve(to, HEAD_BYTES_MAX);

        to->size += cbor_encode_bool(value, at, HEAD_BYTES_MAX);
}

void cbor_put_null(struct buffer *to) {
        uint8_t *at = buffer_reserve(to, HEAD_BYTES_MAX);

        to->size += cbor_encode_null(at, HEAD_BYTES_MAX);
}
