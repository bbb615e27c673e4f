"""Random streams, derived from (seed, round, shard) and nothing else."""

import hashlib

import torch


def stream(seed: int, round_number: int, shard: int, purpose: str = "") -> torch.Generator:
    """A CPU generator for one fit; round 0 of shard 0 is the stream of the initial weights.

    Args:
        seed: the run's seed, 0..2**31 - 1.
        round_number: 0..; counts from 1 for training.
        shard: the shard's number, -1 for a node's own data, -2 for the choice of a round's cohort.
        purpose: what a second stream of the same fit is for; "" is the fit itself.
    """
    digest = hashlib.sha256(f"{seed}/{round_number}/{shard}{purpose and '/'}{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
