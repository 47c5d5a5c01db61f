"""Other processes: how instances are started in them, watched, spoken to and ended."""
