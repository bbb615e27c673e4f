"""Trains with hostile nodes under every defence, and writes the measured tables into docs/attacks.md."""

from benchmarks.attack_jobs import jobs
from benchmarks.attack_tables import tables
from benchmarks.campaign import Campaign
from benchmarks.hostile_nodes import ATTACKS
from common.command_line import run_command

ATTACKS_CAMPAIGN = Campaign("attacks", __doc__, tuple(ATTACKS), jobs, tables)

if __name__ == "__main__":
    run_command(ATTACKS_CAMPAIGN.main, ATTACKS_CAMPAIGN.prog)
