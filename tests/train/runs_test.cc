// Records of runs: JSON and SQLite and back, rebuilt from the folders, chosen, ordered, compared.
#include "train/runs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "message_of.h"

namespace bp::train {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

class Runs : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  void write(const std::string& name, const std::string& text) const {
    fs::create_directories((fs::path(folder_) / name).parent_path());
    std::ofstream(fs::path(folder_) / name) << text;
  }
  std::vector<std::string> names(std::vector<RunRecord> runs) const {
    std::vector<std::string> all;
    for (const RunRecord& r : runs) all.push_back(r.folder);
    return all;
  }
  std::string folder_ = ::testing::TempDir() + "/bp_runs_test." + std::to_string(getpid());
};

RunRecord record(const std::string& folder, double lr, double loss) {
  RunRecord r;
  r.folder = folder;
  r.name = "net \"<>\xff";
  r.status = "finished";
  r.started = 1.7e9;
  r.epochs = r.planned_epochs = 2;
  r.metrics["validation_loss"] = {loss, loss / 2, 1};
  r.metrics["train_accuracy"] = {std::nan(""), 0.5, 1};
  set_settings(r, parse_toml("name = '" + folder + "'\n[optimizer]\ntype = 'adam'\nlr = " + std::to_string(lr) +
                                 "\n[model]\nlayers = [{ type = 'linear', units = 3 }, { type = 'relu' }]\ninput = [2]",
                             "t"));
  r.environment["host"] = "elsewhere";
  r.resumed = 2;
  r.paused = 3.5;
  return r;
}

TEST_F(Runs, ARecordReadsBackFromJsonAndSqlite) {
  const RunRecord r = record("a", 0.1, 0.4);
  EXPECT_THAT(r.settings,
              ElementsAre(std::pair("name", "a"), std::pair("optimizer.type", "adam"), std::pair("optimizer.lr", "0.1"),
                          std::pair("model.layers.0.type", "linear"), std::pair("model.layers.0.units", "3"),
                          std::pair("model.layers.1.type", "relu"), std::pair("model.input", "[2]")));
  RunIndex index(folder_);
  index.put(r);
  index.put(r);
  ASSERT_EQ(index.all().size(), 1u);
  for (const RunRecord& back : {parse_run_record(to_json(r), "t"), index.all()[0]}) {
    EXPECT_EQ(back.settings, r.settings);
    EXPECT_EQ(back.config_hash, r.config_hash);
    EXPECT_EQ(back.environment, r.environment);
    EXPECT_EQ(back.metrics.at("validation_loss").best, 0.2);
    EXPECT_TRUE(std::isnan(back.metrics.at("train_accuracy").last));
    EXPECT_EQ(back.started, r.started);
    EXPECT_EQ(back.epochs, 2);
  }
  EXPECT_EQ(parse_run_record(to_json(r), "t").resumed, 2);
  EXPECT_EQ(parse_run_record(to_json(r), "t").paused, 3.5);
  EXPECT_EQ(record("b", 0.1, 1).config_hash, r.config_hash);  // the name is no part of it
  EXPECT_NE(record("a", 0.2, 1).config_hash, r.config_hash);
}

TEST_F(Runs, BestValuesFollowTheMetric) {
  RunRecord r;
  const std::vector<std::string> columns{"epoch", "lr", "train_loss", "validation_accuracy", "seconds"};
  add_epoch(r, columns, {1, 0.1, 3, 0.7, 2});
  add_epoch(r, columns, {2, 0.1, 1, 0.9, 2});
  add_epoch(r, columns, {3, 0.1, 2, 0.8, std::nan("")});
  EXPECT_EQ(r.metrics.at("train_loss").best, 1);
  EXPECT_EQ(r.metrics.at("train_loss").last, 2);
  EXPECT_EQ(r.metrics.at("validation_accuracy").best, 0.9);
  EXPECT_EQ(r.metrics.at("validation_accuracy").best_epoch, 2);
  EXPECT_EQ(r.metrics.size(), 2u);
  EXPECT_EQ(r.epochs, 3);
  EXPECT_EQ(r.seconds, 4);
}

TEST_F(Runs, ALostOldOrDamagedDatabaseIsMadeFromTheFolders) {
  write("old/config.toml", "name = \"old\"\n[train]\nepochs = 3\n");
  write("old/history.csv", "epoch,lr,train_loss,seconds\n1,0.1,0.5,1\n2,0.1,,1\n");
  write("new/config.toml", "name = \"new\"\n");
  write("broken/config.toml", "name = \n");
  write("other/notes.txt", "not a run");
  RunRecord r = record("renamed since", 0.1, 0.4);
  write_run_record(folder_ + "/new", r);
  const std::string file = folder_ + "/runs.sqlite";
  const auto check = [&](RunIndex& index) {
    const std::vector<RunRecord> all = index.all();
    ASSERT_THAT(names(all), ElementsAre("new", "old"));  // by start
    EXPECT_EQ(all[0].metrics.at("validation_loss").last, 0.4);
    EXPECT_EQ(all[1].metrics.at("train_loss").last, 0.5);
    EXPECT_EQ(all[1].epochs, 2);
    EXPECT_EQ(all[1].planned_epochs, 3);
    EXPECT_EQ(all[1].status, "interrupted");
  };
  {
    RunIndex lost(folder_);
    check(lost);
    ASSERT_EQ(lost.skipped().size(), 1u);
    EXPECT_THAT(lost.skipped()[0], HasSubstr("broken"));
  }
  {
    io::Database d(file);
    d.script("DROP TABLE metrics; DROP TABLE runs; CREATE TABLE runs (x)");
    d.set_version(0);
  }
  {
    RunIndex old(folder_);
    check(old);
    EXPECT_TRUE(old.remove("old"));
    EXPECT_FALSE(old.remove("old"));
    EXPECT_THAT(names(old.all()), ElementsAre("new"));
  }
  fs::remove(file);
  std::ofstream(file) << "this is no database, and long enough to be read as the beginning of one";
  RunIndex damaged(folder_);
  check(damaged);
  EXPECT_TRUE(fs::exists(file + ".damaged"));
}

TEST_F(Runs, WhatANewerProgramMadeIsLeftAlone) {
  {
    io::Database d(folder_ + "/runs.sqlite");
    d.set_version(99);
  }
  EXPECT_THAT(message_of(ErrorKind::state, [&] { RunIndex index(folder_); }), HasSubstr("newer"));
  EXPECT_THAT(message_of(ErrorKind::io, [&] { RunIndex index(folder_ + "/none"); }), HasSubstr("no such folder"));
}

TEST_F(Runs, AProcessThatIsGoneWasKilled) {
  RunRecord r = record("a", 0.1, 0.4);
  r.status = "running";
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  RunIndex index(folder_);
  for (const auto& [where, process, status] : {std::tuple{std::string(host), getpid(), "running"},
                                               {std::string(host), 0x7ffffff0, "killed"},
                                               {std::string("elsewhere"), 0x7ffffff0, "running"}}) {
    r.environment = {{"host", where}, {"process", std::to_string(process)}};
    index.put(r);
    EXPECT_EQ(index.all()[0].status, status);
  }
}

TEST_F(Runs, AreChosenOrderedAndCompared) {
  std::vector<RunRecord> all{record("a", 0.1, 0.4), record("b", 0.02, 0.3), record("c", 0.003, 12)};
  all[2].metrics.clear();
  all[1].settings.emplace_back("train.batch", "64");
  const auto chosen = [&](const std::string& condition) { return names(select_runs(all, {condition})); };
  EXPECT_THAT(chosen("optimizer.lr<0.1"), ElementsAre("b", "c"));
  EXPECT_THAT(chosen("optimizer.lr<=0.1"), ElementsAre("a", "b", "c"));
  EXPECT_THAT(chosen("optimizer.lr=1e-1"), ElementsAre("a"));
  EXPECT_THAT(chosen("best.validation_loss>0.16"), ElementsAre("a"));
  EXPECT_THAT(chosen("train.batch!=64"), ElementsAre("a", "c"));
  EXPECT_THAT(chosen("optimizer.type~da"), ElementsAre("a", "b", "c"));
  EXPECT_THAT(chosen("started>=2023-11-14"), ElementsAre("a", "b", "c"));
  EXPECT_THAT(chosen("started<2023-11-14"), ElementsAre());
  EXPECT_THAT(message_of(ErrorKind::config, [&] { select_runs(all, {"optimiser.lr<1"}); }),
              HasSubstr("did you mean \"optimizer.lr\""));
  EXPECT_THAT(message_of(ErrorKind::config, [&] { select_runs(all, {"finished"}); }), HasSubstr("NAME=VALUE"));
  sort_runs(all, "validation_loss");
  EXPECT_THAT(names(all), ElementsAre("b", "a", "c"));
  sort_runs(all, "-validation_loss");
  EXPECT_THAT(names(all), ElementsAre("a", "b", "c"));
  sort_runs(all, "optimizer.lr");
  EXPECT_THAT(names(all), ElementsAre("c", "b", "a"));
  EXPECT_THROW(sort_runs(all, "los"), Error);
  const std::vector<ComparedRow> rows = differing_settings(all);
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].name, "name");
  EXPECT_THAT(rows[1].values, ElementsAre("0.003", "0.02", "0.1"));
  EXPECT_THAT(rows[2].values, ElementsAre("", "64", ""));
}

TEST_F(Runs, ARecordThatIsNoneIsToldSo) {
  for (const char* text : {"", "{}", "[1]", "{\"folder\": 3}", "{\"folder\""})
    EXPECT_THAT(message_of(ErrorKind::format, [&] { parse_run_record(text, "r.json"); }), HasSubstr("r.json"));
}

}  // namespace
}  // namespace bp::train
