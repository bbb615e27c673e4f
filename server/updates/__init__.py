"""What becomes of an update before the average: screened, clipped, set aside, or folded in late."""
