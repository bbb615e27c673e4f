"""Trains every strategy on three divisions of the data, and writes the measured tables into docs/strategies.md."""

from benchmarks.campaign import Campaign
from benchmarks.strategy_jobs import STRATEGIES, jobs
from benchmarks.strategy_tables import tables
from common.command_line import run_command

STRATEGIES_CAMPAIGN = Campaign("strategies", __doc__, STRATEGIES, jobs, tables)

if __name__ == "__main__":
    run_command(STRATEGIES_CAMPAIGN.main, STRATEGIES_CAMPAIGN.prog)
