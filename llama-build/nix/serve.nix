# A built server generates one answer from a built model, with no network but its own loopback.
{
  runCommand,
  python311,
  server,
  model,
}:

runCommand "${server.pname}-serves-${model.lock.name}" { nativeBuildInputs = [ python311 ]; } ''
  export HOME=$TMPDIR MODEL_PATH=${model}/${model.modelPath}
  python3.11 ${./serve_check.py} ${server}/bin/llama-server ${model.lock.name}
  touch $out
''
