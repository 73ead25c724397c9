"""The results of an ablation: reads its runs, and writes the table, the statistics and the plot."""
