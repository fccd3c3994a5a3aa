"""HTML reports, charts, the leaderboard, tables and drawings."""
