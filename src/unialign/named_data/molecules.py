"""Compounds of the package `chemicals`: name, SMILES, fingerprint and measured properties."""

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from unialign.errors import MissingDependencyError
from unialign.items import Items
from unialign.media import Kind
from unialign.named_data._named_data import NamedData, table

_KINDS: dict[str, Kind] = {"name": "text", "smiles": "text", "fingerprint": "array", "properties": "array"}
# Boiling point, melting point, critical temperature, critical pressure and critical volume.
_PROPERTIES = ("Tb", "Tm", "Tc", "Pc", "Vc")
_BITS = 512
# Formulas that estimate a property from the structure.
_ESTIMATES = {"JOBACK", "WILSON_JASPERSON", "FEDORS"}


def read(folder: Path) -> Items:
    """List the compounds that have a structure and all five properties, on a logarithmic scale.

    SMILES and fingerprint describe the same structure. Name and properties are independent of it.
    """
    try:
        import chemicals
        from chemicals.identifiers import pubchem_db
        from rdkit import Chem, rdBase
        from rdkit.Chem import rdFingerprintGenerator
    except ImportError as error:
        raise MissingDependencyError(f"molecules need chemicals and rdkit ({error}): {DATA.install}") from None
    rdBase.DisableLog("rdApp.*")
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=_BITS)
    pubchem_db.finish_loading()
    records = []
    for compound in sorted(pubchem_db.CAS_index.values(), key=lambda compound: compound.CAS):
        found = [_measured(chemicals, name, compound.CASs) for name in _PROPERTIES]
        if None in found:
            continue
        structure = Chem.MolFromSmiles(compound.smiles)
        if structure is None:
            continue
        record: dict[str, Any] = {
            "id": compound.CASs,
            # The first block of the key is the same for stereoisomers and isotopes.
            "group": compound.InChI_key.split("-")[0],
            "name": compound.iupac_name or compound.common_name,
            "smiles": compound.smiles,
            "fingerprint": [float(bit) for bit in generator.GetFingerprint(structure)],
            "properties": found,
        }
        records.append(record)
    return table(DATA, records, _KINDS, folder)


def _measured(chemicals: Any, name: str, compound: str) -> float | None:
    """Return the decimal logarithm of the first value that is not estimated from the structure."""
    method = next((m for m in getattr(chemicals, f"{name}_methods")(compound) if m not in _ESTIMATES), None)
    value = None if method is None else getattr(chemicals, name)(compound, method=method)
    return math.log10(value) if value is not None and value > 0 else None


def _folder() -> Path:
    spec = find_spec("chemicals")
    return Path(spec.origin).parent if spec is not None and spec.origin else Path("chemicals")


DATA = NamedData(
    name="molecules",
    title="compounds: name, SMILES, fingerprint, measured properties",
    license="MIT",
    install="pip install chemicals rdkit",
    folder=_folder(),
    version="1.5.2",
    counts={"items": 3242},
    equal_texts=(),
    equal_files=(),
    read=read,
)
