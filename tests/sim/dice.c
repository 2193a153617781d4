/* SPDX-License-Identifier: Apache-2.0 */

/* Chance that a seed repeats: SplitMix64. Not for keys without a seed (identity.c). */

#include "sim.h"

#include <string.h>

uint64_t dice_roll(struct dice *dice) {
        uint64_t x = dice->state += UINT64_C(0x9e3779b97f4a7c15);

        x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
        return x ^ x >> 31;
}

void dice_seed(struct dice *dice, uint64_t seed, uint64_t stream) {
        dice->state = seed;
        dice->state = dice_roll(dice) ^ stream * UINT64_C(0xd6e8feb86659fd93);
        (void)dice_roll(dice);
}

void dice_fill(struct dice *dice, void *data, size_t size) {
        uint8_t *at = data;
        uint64_t roll;
        size_t n;

        for (; size > 0; at += n, size -= n) {
                roll = dice_roll(dice);
                n = size < sizeof(roll) ? size : sizeof(roll);
                memcpy(at, &roll, n);
        }
}

bool dice_happens(struct dice *dice, double percent) {
        if (percent <= 0)
                return false;
        return (double)(dice_roll(dice) >> 11) * 0x1p-53 * 100 < percent;
}
