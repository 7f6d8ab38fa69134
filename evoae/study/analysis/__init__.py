"""From runs to tables: statistics, published values, claims, uniformity, inspection."""
