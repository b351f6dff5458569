"""What each recorder of trainings costs and keeps: scripts that a fresh process runs, one fit each."""
