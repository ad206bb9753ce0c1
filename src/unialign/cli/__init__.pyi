from unialign.cli._command import Command as Command, Parser as Parser, results_folder as results_folder
from unialign.cli._console import chosen_workers as chosen_workers, echo as echo, shown as shown
from unialign.cli._main import execute as execute, main as main, parsers as parsers

__all__ = ["Command", "main"]
