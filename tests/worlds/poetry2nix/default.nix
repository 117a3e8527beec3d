# Stands in for poetry2nix where it is asked what it is given: the arguments that the real one reads, and the lock.
{ pkgs }:
let
  common =
    {
      projectDir,
      python,
      pyproject,
      poetrylock,
      preferWheels,
      groups,
      checkGroups,
      src ? projectDir,
    }:
    let
      project = builtins.fromTOML (builtins.readFile pyproject);
      lock = builtins.fromTOML (builtins.readFile poetrylock);
    in
    assert builtins.all (group: group == "main" || project.tool.poetry.group ? ${group}) groups;
    {
      inherit python;
      outPath = "/another/${project.tool.poetry.name}";
      drvPath = "/another/${project.tool.poetry.name}.drv";
      locked = map (package: package.name) lock.package;
      sources = builtins.attrNames (builtins.readDir src);
    };
in
{
  mkPoetryApplication = common;
  mkPoetryEnv = common;
}
