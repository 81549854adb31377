from etude.core.parts import as_shelf

as_shelf(__name__)
