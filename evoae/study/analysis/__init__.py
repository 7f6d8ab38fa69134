"""From runs to tables: statistics, published values, claims, designs in blocks, inspection."""
