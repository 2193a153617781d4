/* SPDX-License-Identifier: Apache-2.0 */

/* Reads lines "EPOCH EXPRESSION" and answers each with a line: "NORMAL FORM|next|next|…" (five elapses after EPOCH, as
 * seconds), or "refused|why". For the comparison with systemd-analyze. */

#include <stdio.h>
#include <stdlib.h>

#include "config/calendar.h"

int main(void) {
        char line[512];

        while (fgets(line, sizeof line, stdin)) {
                struct calendar *calendar;
                char *expression, why[128], form[256];
                unix_sec at = strtoll(line, &expression, 10);

                expression[strcspn(expression, "\n")] = 0;
                if (*expression == ' ')
                        expression++;
                if (calendar_parse(expression, &calendar, why) < 0) {
                        printf("refused|%s\n", why);
                        continue;
                }
                calendar_format(calendar, form);
                fputs(form, stdout);
                for (int i = 0; i < 5 && at != INT64_MAX; i++) {
                        at = calendar_next(calendar, at);
                        printf("|%lld", (long long)(at == INT64_MAX ? -1 : at));
                }
                putchar('\n');
                calendar_free(calendar);
        }
        return 0;
}
