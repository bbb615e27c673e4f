"""Trains every tutorial's recipe, centralized and federated, and writes the measured tables into docs/recipes.md."""

from benchmarks.campaign import Campaign
from benchmarks.recipe_jobs import RECIPES, jobs
from benchmarks.recipe_tables import tables
from common.command_line import run_command

RECIPES_CAMPAIGN = Campaign("recipes", __doc__, RECIPES, jobs, tables)

if __name__ == "__main__":
    run_command(RECIPES_CAMPAIGN.main, RECIPES_CAMPAIGN.prog)
