from unialign.cli._console import chosen_workers as chosen_workers, echo as echo, shown as shown
from unialign.cli._options import results_folder as results_folder
from unialign.cli.main import execute as execute, main as main

__all__ = ["main"]
