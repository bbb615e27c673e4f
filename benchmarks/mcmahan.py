"""Counts the rounds to 99 % as McMahan et al. (2017) did, and writes the tables into docs/mcmahan.md."""

from benchmarks.campaign import Campaign
from benchmarks.mcmahan_jobs import GROUPS, jobs
from benchmarks.mcmahan_tables import tables
from common.command_line import run_command

MCMAHAN_CAMPAIGN = Campaign("mcmahan", __doc__, GROUPS, jobs, tables, target="bench-long")

if __name__ == "__main__":
    run_command(MCMAHAN_CAMPAIGN.main, MCMAHAN_CAMPAIGN.prog)
