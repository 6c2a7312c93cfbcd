"""Towers of finite fields, with exponentials and logarithms between neighbouring fields.

A tower is a Cunningham chain of primes, p_k = 2 p_(k+1) + 1. The squares modulo p_k are a group of
p_(k+1) elements with a generator g_k. Hence a -> g_k^a maps residues modulo p_(k+1) to squares
modulo p_k: an exponential, with the discrete logarithm as the inverse. Since p_k = 3 mod 4, either
u or -u is a square: the quadratic character of u is a sign.

Arrays of residues are [entries, draws, levels] in uint64; every draw has a tower.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np

LEVELS = 4
"""Primes of a chain."""

LEAST, SPAN = 2**27, 2**17
"""The smallest prime of a chain is between LEAST and 2 LEAST; candidates sieved at a time."""

BABIES, SLOTS, GIANTS = 2**15, 2**17, 2**12
"""Powers of a generator in the table of its logarithms, places of the table, steps at a time."""

ONE = np.uint64(1)

SIEVE = [r for r in range(3, 200) if all(r % s for s in range(2, r))]


def chains(rng: np.random.Generator, count: int) -> np.ndarray:
    """Chains of four primes below 2^31, [count, LEVELS], the largest first, from a random start.

    There are about 2500 such chains.
    """
    found: list[list[int]] = []
    while len(found) < count:
        start = int(rng.integers(LEAST // 4, LEAST // 2 - SPAN)) * 4 + 3
        possible = np.ones(SPAN, bool)
        for r in SIEVE:
            quarter = pow(4, -1, r)
            for level in range(LEVELS):  # start + 4 i = 1 / 2^level - 1 modulo r
                possible[(pow(2, -level, r) - 1 - start) * quarter % r :: r] = False
        last = (start + 4 * np.flatnonzero(possible)).astype(np.uint64)
        for level in range(LEVELS):  # few composite numbers pass Fermat's test
            n = (last + ONE) * np.uint64(2**level) - ONE
            last = last[_power(np.full_like(n, 2), n - ONE, n) == 1]
        for prime in last.tolist():
            chain = [(prime + 1) * 2**level - 1 for level in reversed(range(LEVELS))]
            if all(map(_is_prime, chain)) and chain not in found:
                found.append(chain)
    return np.array(found[:count], np.uint64)


def _power(x: np.ndarray, exponents: np.ndarray, moduli: np.ndarray) -> np.ndarray:
    """x^n for exponents n of any shape that fits."""
    result = np.ones(np.broadcast_shapes(x.shape, exponents.shape), np.uint64)
    while exponents.any():
        result = np.where(exponents & ONE, result * x % moduli, result)
        x, exponents = x * x % moduli, exponents >> ONE
    return result


def _is_prime(n: int) -> bool:
    """Miller's test of n = 3 mod 4 below 3.2e9; the four bases leave no exception."""
    return all(pow(base, n // 2, n) in (1, n - 1) for base in (2, 3, 5, 7))


class Towers:
    """Arithmetic in the fields of several towers, one for every draw."""

    def __init__(self, rng: np.random.Generator, draws: int):
        """Finds the chains, and draws a generator for every prime."""
        self._rng = rng
        self.primes = chains(rng, draws)  # [draws, LEVELS]
        self.generators = self.squares(1)[0]
        self._table = cache(
            lambda *place: Logarithms(int(self.generators[place]), int(self.primes[place]))
        )

    def uniform(self, *shape: int) -> np.ndarray:
        """Random residues."""
        size = (*shape, *self.primes.shape)
        return self._rng.integers(0, self.primes, size=size, dtype=np.uint64)

    def squares(self, *shape: int) -> np.ndarray:
        """Random squares other than zero."""
        half = self._rng.integers(1, self.primes, size=(*shape, *self.primes.shape))
        return self.mul(half.astype(np.uint64), half.astype(np.uint64))

    def integers(self, numbers: Sequence[int]) -> np.ndarray:
        """The residues of whole numbers of any size."""
        primes = self.primes.ravel().tolist()
        rows = [[number % p for p in primes] for number in numbers]
        return np.array(rows, np.uint64).reshape(len(numbers), *self.primes.shape)

    def add(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """x + y."""
        total = x + y
        return np.minimum(total, total - self.primes)  # below zero is huge

    def neg(self, x: np.ndarray) -> np.ndarray:
        """-x."""
        return np.where(x == 0, x, self.primes - x)

    def mul(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """x y."""
        return x * y % self.primes

    def inverse(self, x: np.ndarray) -> np.ndarray:
        """1 / x, and 0 for 0, by products and a single inversion per field (Montgomery)."""
        if x.ndim != 3:
            return self.inverse(x.reshape(-1, *self.primes.shape)).reshape(x.shape)
        if not len(x):
            return x
        if len(x) == 1:
            pairs = zip(x.ravel().tolist(), self.primes.ravel().tolist(), strict=True)
            inverses = [pow(number, -1, prime) if number else 0 for number, prime in pairs]
            return np.array(inverses, np.uint64).reshape(x.shape)
        nonzero = np.where(x == 0, ONE, x)
        half = len(x) // 2
        first, second, rest = nonzero[:half], nonzero[half : 2 * half], nonzero[2 * half :]
        joint = self.inverse(np.concatenate([self.mul(first, second), rest]))
        inverses = [self.mul(joint[:half], second), self.mul(joint[:half], first), joint[half:]]
        return np.where(x == 0, x, np.concatenate(inverses))

    def power(self, x: np.ndarray, exponents: np.ndarray) -> np.ndarray:
        """x^n for exponents n of any shape that fits."""
        return _power(x, exponents, self.primes)

    def is_square(self, x: np.ndarray) -> np.ndarray:
        """Whether the quadratic character of x is not -1; zero counts as a square."""
        return self.power(x, self.primes >> ONE) <= 1

    def exp(self, a: np.ndarray) -> np.ndarray:
        """On level k the square g_k^(a on level k+1); nothing of use on the last level."""
        return self.power(self.generators, np.roll(a, -1, axis=-1))

    def log(self, squares: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """On level k+1 the discrete logarithm of the square on level k, [..., draws, LEVELS].

        Args:
          squares: squares other than zero, [..., draws, LEVELS].
          wanted: the draws and levels k in question, [draws, LEVELS]; elsewhere the result is 0.
        """
        result = np.zeros_like(squares)
        for *entry, draw, level in np.argwhere(np.ones(squares.shape, bool) & wanted).tolist():
            if level + 1 < LEVELS:
                square = int(squares[(*entry, draw, level)])
                logarithm = self._table(draw, level).log(square, self._rng)
                result[(*entry, draw, level + 1)] = logarithm
        return result


class Logarithms:
    """Discrete logarithms among the squares modulo a prime, by baby steps and giant steps.

    The table of baby steps keeps a single power per place, and loses every eighth power: a search
    without a result starts again at a random distance.
    """

    def __init__(self, generator: int, prime: int):
        """Fills the table; the squares are a group of (prime - 1) / 2 elements."""
        self._generator, self._prime, self._order = generator, prime, prime // 2
        giant = pow(generator, -BABIES, prime)
        self._babies = self._powers(generator, BABIES)
        self._giants = self._powers(giant, self._order // BABIES + 1)
        self._slots = np.zeros(SLOTS, np.uint16)
        self._slots[self._place(self._babies)] = np.arange(BABIES)

    def log(self, square: int, rng: np.random.Generator) -> int:
        """The exponent a with generator^a = square, for a square other than zero."""
        shift, prime = 0, np.uint64(self._prime)
        while True:
            moved = np.uint64(square * pow(self._generator, shift, self._prime) % self._prime)
            for first in range(0, len(self._giants), GIANTS):
                steps = moved * self._giants[first : first + GIANTS] % prime
                baby = self._slots[self._place(steps)]
                hits = np.flatnonzero(self._babies[baby] == steps)
                if len(hits):
                    giant = first + int(hits[0])
                    return (int(baby[hits[0]]) + giant * BABIES - shift) % self._order
            shift = int(rng.integers(self._order))

    def _powers(self, base: int, count: int) -> np.ndarray:
        powers = np.ones(1, np.uint64)
        while len(powers) < count:
            step = np.uint64(pow(base, len(powers), self._prime))
            powers = np.concatenate([powers, powers * step % np.uint64(self._prime)])
        return powers[:count]

    def _place(self, residues: np.ndarray) -> np.ndarray:
        return residues & np.uint64(SLOTS - 1)
