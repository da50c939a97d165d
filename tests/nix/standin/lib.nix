# The functions of nixpkgs' `lib` that the expressions use: same names, same results.
let
  inherit (builtins)
    attrNames
    concatStringsSep
    elem
    filter
    fromJSON
    functionArgs
    isFunction
    listToAttrs
    readFile
    replaceStrings
    stringLength
    substring
    ;
in
rec {
  inherit elem replaceStrings;
  inherit (builtins) mapAttrs;

  concatStrings = concatStringsSep "";
  concatMapStrings = concatMapStringsSep "";
  concatMapStringsSep =
    separator: function: list:
    concatStringsSep separator (map function list);
  filterAttrs =
    predicate: set:
    genAttrs (filter (name: predicate name set.${name}) (attrNames set)) (name: set.${name});
  genAttrs =
    names: function:
    listToAttrs (
      map (name: {
        inherit name;
        value = function name;
      }) names
    );
  hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
  hasSuffix = suffix: text: removeSuffix suffix text != text;
  importJSON = path: fromJSON (readFile path);
  mapAttrsToList = function: set: map (name: function name set.${name}) (attrNames set);
  optional = condition: value: optionals condition [ value ];
  optionals = condition: list: if condition then list else [ ];
  optionalAttrs = condition: set: if condition then set else { };
  optionalString = condition: text: if condition then text else "";
  removeSuffix =
    suffix: text:
    let
      length = stringLength text - stringLength suffix;
    in
    if length >= 0 && substring length (-1) text == suffix then substring 0 length text else text;

  # As there, the result can be made again with other arguments.
  makeOverridable =
    function: arguments:
    function arguments
    // {
      override = changed: makeOverridable function (arguments // changed);
    };
  callPackageWith =
    scope: path: extra:
    let
      function = if isFunction path then path else import path;
      wanted = functionArgs function;
      given = scope // extra;
      missing = filter (name: !wanted.${name} && !(given ? ${name})) (attrNames wanted);
    in
    if missing != [ ] then
      throw "stand-in: ${toString path} wants ${toString missing}, which is not there"
    else
      makeOverridable function (builtins.intersectAttrs wanted scope // extra);

  fetchers.proxyImpureEnvVars = [
    "http_proxy"
    "https_proxy"
    "ftp_proxy"
    "all_proxy"
    "no_proxy"
  ];
  licenses = {
    mit.spdxId = "MIT";
    unfree.free = false;
  };
  sourceTypes = {
    fromSource.isSource = true;
    binaryNativeCode.isSource = false;
  };
  platforms = rec {
    linux = [
      "x86_64-linux"
      "aarch64-linux"
    ];
    darwin = [
      "x86_64-darwin"
      "aarch64-darwin"
    ];
    unix = linux ++ darwin;
  };
}
