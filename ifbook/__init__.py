"""What only the book needs: the ledger of claims, the figures, and the execution of chapters."""
