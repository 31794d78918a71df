// The program bp: parses the command line, calls the commands, turns errors into exit codes.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <new>

#include "base/nearest.h"
#include "bp/error.h"
#include "bp/version.h"
#include "commands.h"

namespace {

constexpr const char* kFooter = R"(Examples:
  bp train examples/fashion_mnist.toml
  bp train net.toml --set optimizer.lr=1e-3 --set train.epochs=20 --out runs/slow
  bp train --resume runs/fashion_mnist
  bp eval runs/fashion_mnist
  bp predict runs/fashion_mnist images.npy -o classes.csv
  bp inspect examples/fashion_mnist.toml
  bp export runs/fashion_mnist -o model.onnx
  bp import model.onnx -o DIR
  bp gradcheck examples/fashion_mnist.toml
  bp profile examples/fashion_mnist.toml --trace step.json
  bp cures --only vanishing,exploding
  bp runs --where "optimizer.lr<0.01" --sort best.validation_loss
  bp runs compare fashion_mnist fashion_mnist-2 --chart losses.svg
  bp tune examples/fashion_mnist.toml --workers 2 --set data.limit=6000

A run leaves a folder runs/NAME (NAME-2, -3, ... when it exists):
  model.safetensors       the trained model            config.toml   the configuration with all defaults
  checkpoints/            all that --resume needs      history.csv   a row an epoch
  run.json                its place in bp runs         loss.svg      the loss curves
  report.html             a page about it all          events/       for tensorboard --logdir runs
Ctrl-C (or SIGTERM) finishes the step, saves and says how to resume; a second one stops at once.

Exit codes: 0 done; 2 wrong command line or configuration; 3 data of a wrong shape, type or value; 4 a file cannot be
  read or written; 5 a corrupt file; 6 training diverged; 7 a model or checkpoint does not fit; 9 gradcheck found a
  wrong gradient; 130 interrupted; 1 anything else.)";

int error_code(bp::ErrorKind kind) {
  switch (kind) {
    case bp::ErrorKind::config: return 2;
    case bp::ErrorKind::shape:
    case bp::ErrorKind::dtype:
    case bp::ErrorKind::value: return 3;
    case bp::ErrorKind::io: return 4;
    case bp::ErrorKind::format: return 5;
    case bp::ErrorKind::diverged: return 6;
    case bp::ErrorKind::state: return 7;
    case bp::ErrorKind::interrupted: return bp::app::kInterrupted;
    case bp::ErrorKind::trace:
    case bp::ErrorKind::gradient: break;
  }
  return 1;
}

void add_set(CLI::App* command, std::vector<std::string>& set) {
  command->add_option("--set", set, "override a key: --set optimizer.lr=0.01 (may be repeated)")
      ->type_name("KEY=VALUE")
      ->expected(1)
      ->take_all();
}

struct Options {
  bp::app::TrainOptions train;
  bp::app::TuneCommand tune;
  bp::app::EvalOptions eval;
  bp::app::PredictOptions predict;
  bp::app::SampleCommand sample;
  bp::app::InspectOptions inspect;
  bp::app::FindRateOptions find_rate;
  bp::app::ProfileCommand profile;
  bp::app::GradcheckCommand gradcheck;
  bp::app::CuresOptions cures;
  bp::app::ExportCommand export_model;
  bp::app::ImportCommand import_model;
  bp::app::RunsOptions runs;
  std::string report;
};

void add_training(CLI::App& app, Options& o) {
  CLI::App* train = app.add_subcommand("train", "train the model that FILE.toml describes (docs/config.md: the keys)");
  train->add_option("file", o.train.file, "the configuration")->type_name("FILE.toml");
  train->add_option("--resume", o.train.resume, "go on with an interrupted run, exactly where it stopped")
      ->type_name("RUN");
  train->add_option("--out", o.train.out, "the run's folder instead of runs/NAME")->type_name("DIR");
  train->add_option("--threads", o.train.threads, "0: OMP_NUM_THREADS or the number of cores")
      ->check(CLI::Range(0, 1024));
  train->add_flag("--quiet,-q", o.train.quiet, "only errors and the result");
  add_set(train, o.train.set);
}

void add_others(CLI::App& app, Options& o) {
  CLI::App* eval = app.add_subcommand("eval", "metrics of a trained model");
  eval->add_option("run", o.eval.run, "folder of a run")->required()->type_name("RUN");
  eval->add_option("--data", o.eval.data, "which data: test (validation when there are none), validation or train")
      ->check(CLI::IsMember({"test", "validation", "train"}));
  add_set(eval, o.eval.set);

  CLI::App* predict = app.add_subcommand("predict", "class and probabilities, or values, for each row of INPUT");
  predict->add_option("run", o.predict.run, "folder of a run")->required()->type_name("RUN");
  predict->add_option("input", o.predict.input, "inputs: .csv, .npy, or IDX; an image or a folder of them")
      ->required()
      ->type_name("INPUT");
  predict->add_option("-o,--output", o.predict.output, "the CSV file to write")->required()->type_name("FILE.csv");

  CLI::App* sample = app.add_subcommand("sample", "write text with a model that was trained on text");
  sample->add_option("run", o.sample.run, "folder of a run")->required()->type_name("RUN");
  sample->add_option("--prompt", o.sample.prompt, "the text to go on with; a line break unless given")
      ->type_name("TEXT");
  sample->add_option("--tokens", o.sample.tokens, "symbols to write")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  sample->add_option("--temperature", o.sample.temperature, "above 1 bolder, below 1 safer, 0: always the likeliest")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  sample->add_option("--top-k", o.sample.top_k, "choose among the k likeliest; 0: all")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  sample->add_option("--seed", o.sample.seed, "the same seed writes the same text")->capture_default_str();

  CLI::App* inspect = app.add_subcommand("inspect", "layers, shapes, parameters, flops and memory of a model");
  inspect->add_option("what", o.inspect.what, "a configuration or the folder of a run")
      ->required()
      ->type_name("FILE.toml|RUN");
  inspect->add_option("--memory", o.inspect.memory, "also the largest batch whose training step takes at most so much")
      ->transform(CLI::AsSizeValue(false))
      ->type_name("4GiB");
  add_set(inspect, o.inspect.set);

  CLI::App* profile = app.add_subcommand(
      "profile", "where a training step spends its time, and how near that is to the machine's limits");
  profile->add_option("file", o.profile.file, "a configuration or the folder of a run")
      ->required()
      ->type_name("FILE.toml|RUN");
  profile->add_option("--steps", o.profile.steps, "training steps to time on the first batch; nothing is saved")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  profile->add_option("--threads", o.profile.threads, "0: OMP_NUM_THREADS or the number of cores")
      ->check(CLI::Range(0, 1024));
  profile->add_option("--trace", o.profile.trace, "also write the steps for chrome://tracing")->type_name("FILE.json");
  profile->add_flag("--summary", o.profile.summary, "only the sums by layer, by pass and by bound");
  add_set(profile, o.profile.set);

  CLI::App* check = app.add_subcommand("gradcheck", "compare the gradient with finite differences, in f64");
  check->add_option("file", o.gradcheck.file, "the configuration")->required()->type_name("FILE.toml");
  check->add_option("--elements", o.gradcheck.elements, "of each parameter, at most")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  check->add_option("--samples", o.gradcheck.samples, "of the training data")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  add_set(check, o.gradcheck.set);

  app.add_subcommand("keys", "print all keys of a configuration (docs/config.md)");
}

void add_cures(CLI::App& app, Options& o) {
  CLI::App* cures = app.add_subcommand("cures", "the troubles of training and their cures, measured (docs/cures.md)");
  cures->add_option("--only", o.cures.only, "some of them: vanishing,exploding,saddle,plateau,cost,overfitting,...")
      ->type_name("NAME,...")
      ->delimiter(',');
  cures->add_option("--seeds", o.cures.seeds, "runs of each setup")->capture_default_str()->check(CLI::Range(1, 100));
  cures->add_flag("--quick", o.cures.quick, "smaller experiments");
  cures->add_option("--out", o.cures.out, "write DIR/cures.md and a plot each")->type_name("DIR");
  cures->add_option("--data", o.cures.data, "the folder of Fashion-MNIST's files")
      ->capture_default_str()
      ->type_name("DIR");
}

void add_find_rate(CLI::App& app, Options& o) {
  CLI::App* find =
      app.add_subcommand("find-rate", "train some batches at growing learning rates, and tell which works");
  find->add_option("file", o.find_rate.file, "the configuration")->required()->type_name("FILE.toml");
  find->add_option("--low", o.find_rate.search.low, "the first rate")->capture_default_str();
  find->add_option("--high", o.find_rate.search.high, "the last one")->capture_default_str();
  find->add_option("--steps", o.find_rate.search.steps, "from the first to the last")->capture_default_str();
  find->add_option("--chart", o.find_rate.chart, "draw the losses")->type_name("FILE.svg");
  add_set(find, o.find_rate.set);
}

void add_exchange(CLI::App& app, Options& o) {
  CLI::App* out = app.add_subcommand("export", "write a trained model for other programs");
  out->add_option("run", o.export_model.run, "folder of a run")->required()->type_name("RUN");
  out->add_option("-o,--output", o.export_model.output, "FILE.onnx: the model; FILE.safetensors, FILE.npz: its weights")
      ->required()
      ->type_name("FILE");
  out->add_flag("--channels-last", o.export_model.channels_last,
                "keep bp's layout, images [N, H, W, C] and weights [k.., in, out], instead of PyTorch's");
  CLI::App* in = app.add_subcommand("import", "what an ONNX model holds; its weights, or a folder to train it on in");
  in->add_option("file", o.import_model.file, "the model")->required()->type_name("FILE.onnx");
  in->add_option("-o,--output", o.import_model.output,
                 "FILE.safetensors, FILE.npz: the weights; DIR: the model beside a train.toml to fill in")
      ->type_name("FILE|DIR");
}

void add_runs(CLI::App& app, Options& o) {
  CLI::App* runs = app.add_subcommand("runs", "list the runs on record; compare some; forget some");
  runs->add_option("--in", o.runs.folder, "the folder that holds the runs, and runs.sqlite")
      ->capture_default_str()
      ->type_name("DIR");
  runs->add_option("--where", o.runs.where, "only those with: status=finished, optimizer.lr<0.01, name~mnist, ...")
      ->type_name("NAME=VALUE")
      ->expected(1)
      ->take_all();
  runs->add_option("--sort", o.runs.sort, "by a metric, a key of the configuration, started, ...; -NAME: backwards")
      ->type_name("NAME");
  runs->add_option("--limit", o.runs.limit, "only so many; 0: all")->check(CLI::NonNegativeNumber);
  runs->add_flag("--json", o.runs.json, "everything that is on record, as JSON");
  runs->add_flag("--scan", o.runs.scan, "first take up anew every run that lies in the folder");
  runs->require_subcommand(0, 1);
  CLI::App* compare = runs->add_subcommand("compare", "what differs between runs, and their metrics side by side");
  compare->add_option("run", o.runs.names, "folders of runs, or their names in DIR")
      ->required()
      ->expected(2, 1000)
      ->type_name("RUN");
  compare->add_option("--chart", o.runs.chart, "draw their loss curves together")->type_name("FILE.svg");
  CLI::App* remove = runs->add_subcommand("rm", "take runs off the record; their folders stay");
  remove->add_option("run", o.runs.names, "folders of runs, or their names in DIR")->required()->type_name("RUN");
  for (CLI::App* command : {compare, remove}) command->fallthrough();  // --in may follow
}

void add_tune(CLI::App& app, Options& o) {
  CLI::App* tune = app.add_subcommand(
      "tune", "search the values that [tune] of FILE.toml names (docs/tune.md); the same command again goes on");
  tune->add_option("file", o.tune.file, "the configuration")->required()->type_name("FILE.toml");
  tune->add_option("--out", o.tune.out, "the search's folder instead of runs/NAME-tune")->type_name("DIR");
  tune->add_option("--trials", o.tune.trials, "instead of tune.trials; more than before goes on with a search")
      ->check(CLI::Range(1, 100000));
  tune->add_option("--workers", o.tune.workers, "trials at the same time, each in a process of its own")
      ->capture_default_str()
      ->check(CLI::Range(1, 256));
  tune->add_option("--threads", o.tune.threads, "of each worker; unless given several share the cores")
      ->check(CLI::Range(0, 1024));
  tune->add_flag("--quiet,-q", o.tune.quiet, "only errors and the table");
  tune->add_flag("--worker", o.tune.worker)->group("");  // hidden: how the program starts its workers
  add_set(tune, o.tune.set);
}

void add_report(CLI::App& app, Options& o) {
  CLI::App* report = app.add_subcommand("report", "examine a trained model and write RUN/report.html again");
  report->add_option("run", o.report, "folder of a run")->required()->type_name("RUN");
}

int run_runs(const CLI::App& app, const Options& o) {
  const CLI::App* runs = app.get_subcommand("runs");
  if (runs->got_subcommand("compare")) return bp::app::compare_runs(o.runs);
  return runs->got_subcommand("rm") ? bp::app::forget_runs(o.runs) : bp::app::list_runs(o.runs);
}

// The parser itself only says that a command is missing.
void check_command(const CLI::App& app, const std::string& word) {
  std::vector<std::string> known;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    known.push_back(command->get_name());
  if (std::find(known.begin(), known.end(), word) == known.end())
    throw bp::Error(bp::ErrorKind::config, "there is no command \"" + word + "\": did you mean \"" +
                                               bp::nearest_name(word, known) + "\"? See bp --help");
}

int run(const CLI::App& app, const Options& o) {
  if (app.got_subcommand("train")) return bp::app::train(o.train);
  if (app.got_subcommand("tune")) return bp::app::tune(o.tune);
  if (app.got_subcommand("eval")) return bp::app::eval(o.eval);
  if (app.got_subcommand("predict")) return bp::app::predict(o.predict);
  if (app.got_subcommand("sample")) return bp::app::sample(o.sample);
  if (app.got_subcommand("inspect")) return bp::app::inspect(o.inspect);
  if (app.got_subcommand("find-rate")) return bp::app::find_rate(o.find_rate);
  if (app.got_subcommand("profile")) return bp::app::profile(o.profile);
  if (app.got_subcommand("gradcheck")) return bp::app::gradcheck(o.gradcheck);
  if (app.got_subcommand("export")) return bp::app::export_model(o.export_model);
  if (app.got_subcommand("import")) return bp::app::import_model(o.import_model);
  if (app.got_subcommand("cures")) return bp::app::cures(o.cures);
  if (app.got_subcommand("report")) return bp::app::report(o.report);
  if (app.got_subcommand("runs")) return run_runs(app, o);
  return bp::app::keys();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("bp trains neural networks from a TOML file.", "bp");
  app.set_version_flag("--version", "bp " BP_VERSION_STRING);
  app.require_subcommand(1);
  app.footer(kFooter);
  Options options;
  add_training(app, options);
  add_others(app, options);
  add_cures(app, options);
  add_find_rate(app, options);
  add_exchange(app, options);
  add_tune(app, options);
  add_runs(app, options);
  add_report(app, options);
  try {
    if (argc > 1 && argv[1][0] != '-') check_command(app, argv[1]);
    app.parse(argc, argv);
    return run(app, options);
  } catch (const CLI::ParseError& e) { return app.exit(e) == 0 ? 0 : 2; } catch (const bp::Error& e) {
    std::fprintf(stderr, "bp: %s\n", e.what());
    return error_code(e.kind());
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "bp: out of memory: a smaller train.batch, or fewer or smaller layers, need less\n");
    return 1;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bp: %s\n", e.what());
    return 1;
  }
}
