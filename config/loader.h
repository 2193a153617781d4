/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the parts of this folder share while a configuration is being read: the table of keys, where
 * each value was written, and the problems found. Nothing of it outlives config_load(). */

#include "config/config.h"

/* Where something stands. Line 0: it was not written anywhere. */
struct place {
        unsigned file; /* index into loader.files */
        unsigned line;
        bool is_bad; /* what stands there was reported: nothing follows from it */
};

enum key_kind {
        KEY_TEXT,   /* char[] */
        KEY_SPAN,   /* int64_t seconds: "30d" or a number */
        KEY_SIZE,   /* size_t or int64_t bytes: "16K" or a number */
        KEY_COUNT,  /* a whole number */
        KEY_SHARE,  /* a double; its bounds in hundredths */
        KEY_CHOICE, /* an enum by its name */
        KEY_FLAG,   /* a bool */
        KEY_GROUP,  /* read by a function of its own */
};

/* One key of a group: how it is written, where it goes, what is allowed. */
struct key {
        const char *name;
        enum key_kind kind;
        size_t offset, size;        /* of the member */
        int64_t least, most;        /* KEY_SPAN, KEY_SIZE, KEY_COUNT, KEY_SHARE */
        const char *const *choices; /* KEY_CHOICE: in order of the enum, then NULL */
};

struct key_table {
        const char *what; /* "north", for messages */
        const struct key *keys;
        size_t count;
};

#define KEYS_MAX 48 /* in the largest table */

extern const struct key_table top_keys, profile_keys, north_keys, ca_keys, keys_keys, reference_keys;
/* Of `key_types`, in order of enum device_key_type, then NULL. */
extern const char *const device_key_type_names[];

/* The index of `name`, or -1. */
int key_index(const struct key_table *table, const char *name);
/* Whether a number is within the bounds of its key. */
bool key_allows(const struct key *key, int64_t value);
/* Writes "1s to 10y" or "16, 32, 64": what a key takes, for messages. */
void key_allowed_text(const struct key *key, char *to, size_t to_size);

struct problem_entry {
        struct place place;
        bool is_warning;
        char *text;
};

/* A file that a value names, as it was written. */
struct named_file {
        struct place place;
        char *path;
};

struct profile_source {
        struct place place;
        struct place keys[KEYS_MAX];
        struct named_file *anchors; /* idevid_anchors */
        size_t anchor_count;
};

/* Files that values name, with what they held: they travel with the texts. */
#define ATTACHMENTS_MAX 64
struct attachments {
        struct {
                char *path;
                struct buffer content;
        } items[ATTACHMENTS_MAX];
        size_t count;
        bool is_complete; /* out of a snapshot: nothing is read any more */
};
void attachments_free(struct attachments *attachments);
/* What the file holds: read at the first asking. Borrowed. -ENFILE where there are too many, or why it cannot
 * be read. */
int attachment_get(struct attachments *attachments, const char *path, struct bytes *ret);

struct loader {
        struct config *config;
        const char *files[256]; /* names for messages */
        size_t file_count;
        struct attachments *attachments; /* the caller's */
        struct place top[KEYS_MAX], north[KEYS_MAX], ca[KEYS_MAX], keys[KEYS_MAX], classes[3];
        struct profile_source *profiles; /* beside config->profiles */
        struct problem_entry *problems;
        size_t problem_count, error_count;
        bool is_torn; /* a file broke off at a syntax error: what is missing says nothing */
};

/* Adds one problem (or warning) at a place. After PROBLEMS_MAX nothing more is kept: a file of
 * rubbish has one line of trouble per line. */
#define PROBLEMS_MAX 500
void loader_problem(struct loader *loader, struct place place, const char *format, ...) _printf_(3, 4);
void loader_warning(struct loader *loader, struct place place, const char *format, ...) _printf_(3, 4);
/* "unknown …; did you mean …?" for a word that is none of `words` (ends with NULL). */
void loader_unknown(struct loader *loader, struct place place, const char *what, const char *word,
                    const char *const *words);
/* Writes the problems in order of file and line, and forgets them. */
void loader_report(struct loader *loader, struct config_problems *problems);

/* A configuration of defaults. */
struct config *config_new(void);
/* Judges what was read, hands over the problems, and the configuration when there was no error (`error`: one
 * met before, 0 none). Ends the loader. Returns 0 or a negative errno. */
int loader_finish(struct loader *loader, int error, struct config **ret, struct config_problems *problems);

/* Reads one file's text into the configuration, over what is there. */
void loader_read(struct loader *loader, const char *file, struct bytes text);
/* Fills what depends on other values, then judges the whole. */
void loader_derive(struct loader *loader);
void loader_check(struct loader *loader);
/* Reads the certificates out of the files that profiles name. */
void loader_read_anchors(struct loader *loader);

/* What of both concerns certificates; config_check_certificates.c. */
void derive_certificates(struct loader *loader, size_t profile);
void derive_ca(struct loader *loader);
void check_certificates(struct loader *loader, size_t profile);
void check_ca(struct loader *loader);
void check_est(struct loader *loader);
/* Calendar expressions; config_check_calendar.c. */
void derive_calendar(struct loader *loader, size_t profile);
void check_calendar(struct loader *loader, size_t profile);
/* Whether X.509 takes it as a name: "CN=Plant 7 CA, O=Example". `problem` (160 characters) says why not. */
bool subject_is_sound(const char *subject, char *problem);

/* Where a profile's key was written, or where the profile stands. */
struct place profile_place(const struct loader *loader, size_t profile, const char *key);
bool profile_has(const struct loader *loader, size_t profile, const char *key);
struct place top_place(const struct loader *loader, const char *key);
struct place north_place(const struct loader *loader, const char *key);
struct place ca_place(const struct loader *loader, const char *key);
/* Whether none of these keys (ends with NULL) was reported already: only then do they say anything
 * together. */
bool profile_is_sound(const struct loader *loader, size_t profile, const char *const *keys);
#define SOUND(...) profile_is_sound(loader, i, (const char *const[]){ __VA_ARGS__, NULL })
bool ca_is_sound(const struct loader *loader, const char *key);
bool north_is_sound(const struct loader *loader, const char *key);
/* Judges a file that is needed later, under the name `key`: an absolute path, there, readable, and where it
 * `is_secret`, for its owner alone. */
void check_file(struct loader *loader, struct place place, const char *key, const char *path, bool is_secret);
bool is_https_url(const char *url);

/* Text as a message may show it: printable, quoted, shortened. */
#define SHOWN_MAX 72
const char *shown(const char *text, char *to);
